// Small files that are read again when they change.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "refit/security.h"

namespace refit {

// Changes when the file's contents change. All zero if the file does not exist.
using FileStamp = std::tuple<dev_t, ino_t, off_t, int64_t, int64_t>;
FileStamp StampOf(const std::string& path);

// Reads a regular file of at most 1 MiB. NOT_FOUND, PERMISSION_DENIED and so on, naming it. PERMISSION_DENIED also if
// everyone may write it: a file that decides about trust must not be writable by everyone.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path);

// As ReadSmallFile, and PERMISSION_DENIED, with the way out, if others may read it: everyone, or the group of a file of
// our own. If the file belongs to root or another user, its group may read it but not write it: mounted secrets belong
// to root and to a group of the process.
absl::StatusOr<std::string> ReadSecretFile(const std::string& path);

// A value parsed from a file. It is read again when the file changes. Thread-safe.
template <typename T>
class WatchedFile {
 public:
  // Reads and checks the file. Errors name the file.
  using Read = std::function<absl::StatusOr<T>(const std::string& path)>;

  static absl::StatusOr<std::shared_ptr<WatchedFile>> Load(std::string path, Read read, ReloadReport report) {
    const FileStamp stamp = StampOf(path);
    absl::StatusOr<T> value = read(path);
    if (!value.ok()) return value.status();
    return std::shared_ptr<WatchedFile>(
        new WatchedFile(std::move(path), std::move(read), std::move(report), stamp, *std::move(value)));
  }

  // Costs one stat. A file that cannot be used is reported once, and the old value stays.
  std::shared_ptr<const T> Get() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    const FileStamp stamp = StampOf(path_);
    if (stamp == stamp_) return value_;
    stamp_ = stamp;
    absl::StatusOr<T> value = read_(path_);
    const absl::Status status = value.status();
    if (status.ok()) value_ = std::make_shared<const T>(*std::move(value));
    if (report_) report_(status);
    return value_;
  }

 private:
  WatchedFile(std::string path, Read read, ReloadReport report, const FileStamp& stamp, T value)
      : path_(std::move(path)),
        read_(std::move(read)),
        report_(std::move(report)),
        stamp_(stamp),
        value_(std::make_shared<const T>(std::move(value))) {}

  const std::string path_;
  const Read read_;
  const ReloadReport report_;
  absl::Mutex mutex_;
  FileStamp stamp_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const T> value_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit

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

// Changes with a file's contents. All zero for a file that is not there.
using FileStamp = std::tuple<dev_t, ino_t, off_t, int64_t, int64_t>;
FileStamp StampOf(const std::string& path);

// A regular file of at most 1 MiB. NOT_FOUND, PERMISSION_DENIED and so on, naming it; the latter also if anyone may
// write it: what decides about trust is not for everyone to change.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path);

// The same, and PERMISSION_DENIED, saying what to do, if others may read it: anyone, or the group of a file of our own.
// The group of root's file, or of another user's, may read it but not write it: mounted secrets belong to root and to a
// group that the process is in.
absl::StatusOr<std::string> ReadSecretFile(const std::string& path);

// What a file means, read again when the file has changed. Thread-safe.
template <typename T>
class WatchedFile {
 public:
  // Reads and checks the file; errors name it.
  using Read = std::function<absl::StatusOr<T>(const std::string& path)>;

  static absl::StatusOr<std::shared_ptr<WatchedFile>> Load(std::string path, Read read, ReloadReport report) {
    const FileStamp stamp = StampOf(path);
    absl::StatusOr<T> value = read(path);
    if (!value.ok()) return value.status();
    return std::shared_ptr<WatchedFile>(
        new WatchedFile(std::move(path), std::move(read), std::move(report), stamp, *std::move(value)));
  }

  // Costs a stat. What cannot be used is reported once and leaves the old.
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

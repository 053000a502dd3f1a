// The folder in which versions are kept on disk: its lock, its files and their names.
//
//   <model>-<its digest>-<number>.safetensors           a complete version (spooled_version.h) without a trainer epoch
//   <model>-<its digest>-<epoch>-<number>.safetensors   a version with a trainer epoch
//   <the same>.bad                                      a damaged version, kept for inspection
//   models.json                                         numbers and trainer epochs that must not be used again
//   lock                                                held by the service that uses the folder
//   .refit-*.tmp                                        unfinished files, which are removed at the next start
//
// In older files, versions with an epoch have no epoch in their names. They are read and kept.
//
// Everyone who can write to this folder is trusted. So it must belong to the service's user, and others must not be
// able to write to it, unless the options accept any owner.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/safetensors/posix_file.h"
#include "server/store/version_store.h"

namespace refit {

// Whose folder is accepted: kThisUser: that of this process's user, if no others can write to it; kAnyone: any.
enum class SpoolOwner { kThisUser, kAnyone };

class SpoolFolder {
 public:
  // Creates the folder, accessible to its owner only, if it does not exist, and holds its lock until destroyed.
  // INVALID_ARGUMENT: not a folder. PERMISSION_DENIED: not of the required owner. FAILED_PRECONDITION: another service
  // uses it.
  static absl::StatusOr<SpoolFolder> Open(const std::string& path, SpoolOwner owner);

  const std::string& path() const { return path_; }

  struct Contents {
    std::vector<std::string> versions;  // file names, whatever the contents
    std::vector<std::string> leftovers;
    std::vector<std::string> foreign;
  };
  absl::StatusOr<Contents> List() const;

  std::string PathOf(absl::string_view name) const;
  // The name of a version's file. It contains only harmless characters of the model's name.
  static std::string NameOf(const std::string& model, const VersionKey& key);
  // Whether a version may be stored under this name: its own name, or the one from before epochs were part of names.
  static bool IsNameOf(absl::string_view name, const std::string& model, const VersionKey& key);

  absl::Status Remove(absl::string_view name) const;
  // Renames the file, but keeps it.
  absl::Status Quarantine(absl::string_view name) const;

  using Records = std::map<std::string, VersionStore::ModelRecord>;
  // Empty if there is no such file yet. DATA_LOSS, with the place, if it cannot be parsed.
  absl::StatusOr<Records> ReadRecords() const;
  // Writes the whole file, or nothing.
  absl::Status WriteRecords(const Records& records) const;

 private:
  SpoolFolder(std::string path, FileDescriptor folder, FileDescriptor lock)
      : path_(std::move(path)), folder_(std::move(folder)), lock_(std::move(lock)) {}

  std::string path_;
  FileDescriptor folder_;
  FileDescriptor lock_;
};

}  // namespace refit

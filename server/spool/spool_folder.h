// The folder that versions are kept in on disk: whose it is, and what lies in it under which name.
//
//   <model>-<its digest>-<number>.safetensors           a version, whole (spooled_version.h), without a trainer epoch
//   <model>-<its digest>-<epoch>-<number>.safetensors   one of a trainer epoch
//   <the same>.bad                                      one that was found damaged, for somebody to look at
//   models.json                                         numbers and trainer epochs that must not be used again
//   lock                                                held by the service that uses the folder
//   .refit-*.tmp                                        on its way to one of the names above; removed at the next start
//
// Older files of an epoch have none in their names; they are read and kept.
//
// Whoever may write here is trusted: the folder must belong to the service's user, and nobody else may write to it,
// unless it is taken as it is.
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

// Whose folder may be used: of this process's user, with nobody else who may write to it, or any.
enum class SpoolOwner { kThisUser, kAnyone };

class SpoolFolder {
 public:
  // Makes the folder, with access for its owner alone, if there is none, and takes hold of it until destroyed.
  // INVALID_ARGUMENT: no folder. PERMISSION_DENIED: not of the owner that is asked for. FAILED_PRECONDITION: another
  // service uses it.
  static absl::StatusOr<SpoolFolder> Open(const std::string& path, SpoolOwner owner);

  const std::string& path() const { return path_; }

  struct Contents {
    std::vector<std::string> versions;  // names, whatever is in them
    std::vector<std::string> leftovers;
    std::vector<std::string> foreign;
  };
  absl::StatusOr<Contents> List() const;

  std::string PathOf(absl::string_view name) const;
  // The name of a version's file. Of the model's name only what is harmless stands in it.
  static std::string NameOf(const std::string& model, const VersionKey& key);
  // Whether a version may lie under this name: its own, or what it had before epochs stood in names.
  static bool IsNameOf(absl::string_view name, const std::string& model, const VersionKey& key);

  absl::Status Remove(absl::string_view name) const;
  // Out of the way, but kept.
  absl::Status Quarantine(absl::string_view name) const;

  using Records = std::map<std::string, VersionStore::ModelRecord>;
  // None if there is no such file yet. DATA_LOSS, saying where, if it cannot be understood.
  absl::StatusOr<Records> ReadRecords() const;
  // Whole or not at all.
  absl::Status WriteRecords(const Records& records) const;

 private:
  SpoolFolder(std::string path, FileDescriptor folder, FileDescriptor lock)
      : path_(std::move(path)), folder_(std::move(folder)), lock_(std::move(lock)) {}

  std::string path_;
  FileDescriptor folder_;
  FileDescriptor lock_;
};

}  // namespace refit

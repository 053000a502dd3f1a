// Tensor files as bases of pulls: only what has changed since comes then.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "refit/pull.h"
#include "refit/version_summary.h"
#include "refit/worker.h"

namespace refit::cli {

// Metadata by which a file of tensors says which version they are of.
std::map<std::string, std::string> VersionMetadata(const VersionSummary& version);

struct BaseFile {
  std::string path;
  // For a file that does not say it; otherwise as the file says.
  std::optional<uint64_t> version;
  std::optional<uint64_t> trainer_epoch;
};

// Maps a file and digests it, which reads all of it. Errors as Checkpoint::Open. FAILED_PRECONDITION if neither the
// file nor the caller says which version it is; CANCELLED once `is_cancelled`. Whether the base fits is for the service
// to say.
absl::StatusOr<std::shared_ptr<const PullBase>> OpenBase(const BaseFile& file,
                                                         const std::function<bool()>& is_cancelled);

// Maps the file that was just written with these tensors. Does not read them. ABORTED if it has others.
absl::StatusOr<std::shared_ptr<const PullBase>> BaseOfWritten(const std::string& path, const StagedVersion& staged);

}  // namespace refit::cli

// A version as a file: safetensors, tensors in manifest order, so that anybody can read it. Its metadata:
//
//   refit.summary          VersionSummary as JSON
//   refit.publisher        who pushed it
//   refit.tensor_digests   a tensor digest of 16 hexadecimal digits a tensor, in order
//   refit.experts          indices, joined by ',', of the tensors whose dimension 0 counts experts
#pragma once

#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/safetensors/safetensors.h"
#include "server/store/version.h"

namespace refit {

// Writes a committed version to a file of this name, which appears whole and flushed to disk, or not at all. `go_on` is
// asked now and then. CANCELLED if it said no; FAILED_PRECONDITION if the version's memory was given to another;
// RESOURCE_EXHAUSTED for a full disk; otherwise what the system says.
absl::Status WriteSpooledVersion(const std::shared_ptr<Version>& version, const std::string& path,
                                 absl::FunctionRef<bool()> go_on);

// A file whose header and metadata are good; its bytes were not looked at.
class SpooledFile {
 public:
  // INVALID_ARGUMENT for one that is none of ours, truncated, or damaged in its header.
  static absl::StatusOr<SpooledFile> Open(const std::string& path);

  const std::string& model() const { return summary_.model(); }
  VersionKey key() const { return KeyOf(summary_); }
  const v1::VersionSummary& summary() const { return summary_; }

  // Reads all bytes, and gives the version if they are those that were committed: it borrows the file's memory, mapped
  // read-only. DATA_LOSS, naming the first tensor that is damaged.
  absl::StatusOr<std::shared_ptr<Version>> Load() const;

 private:
  absl::Status ReadMetadata();
  absl::Status ReadDigests(const std::string& text);
  absl::Status ReadExperts(const std::string& text);
  const std::string* Find(const char* key) const;

  std::shared_ptr<const SafetensorsFile> file_;
  v1::VersionSummary summary_;
  std::string publisher_;
  std::vector<uint64_t> digests_;
  std::vector<bool> experts_;
};

}  // namespace refit

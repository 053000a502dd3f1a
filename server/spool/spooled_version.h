// A version as a safetensors file that any program can read, with tensors in manifest order. Its metadata:
//
//   refit.summary          VersionSummary as JSON
//   refit.publisher        who pushed it
//   refit.tensor_digests   a digest of 16 hexadecimal digits for each tensor, in order
//   refit.experts          indices, joined by ',', of the tensors whose dimension 0 counts experts
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/safetensors/safetensors.h"
#include "server/store/version.h"

namespace refit {

// Writes a committed version to a file of this name, which appears complete and flushed to disk, or not at all. `go_on`
// is called now and then. CANCELLED if it returned false; FAILED_PRECONDITION if the version's memory was given to
// another version; RESOURCE_EXHAUSTED for a full disk; otherwise the system's error.
absl::Status WriteSpooledVersion(const std::shared_ptr<Version>& version, const std::string& path,
                                 absl::FunctionRef<bool()> go_on);

// A file with a valid header and valid metadata. Its bytes were not checked.
class SpooledFile {
 public:
  // INVALID_ARGUMENT for a file that the spool did not write, or that is truncated or has a damaged header.
  static absl::StatusOr<SpooledFile> Open(const std::string& path);

  const std::string& model() const { return summary_.model(); }
  VersionKey key() const { return KeyOf(summary_); }
  const v1::VersionSummary& summary() const { return summary_; }

  // Reads and checks all bytes, and returns the version. It borrows the file's memory, mapped read-only. DATA_LOSS,
  // naming the first damaged tensor, if the bytes are not those that were committed.
  // Installs that were held when it was written stay held if `stays_held`.
  absl::StatusOr<std::shared_ptr<Version>> Load(bool stays_held = false) const;

 private:
  absl::Status ReadMetadata();
  absl::Status ReadDigests(const std::string& text);
  absl::Status ReadExperts(const std::string& text);
  absl::Status ReadExpertPlaces(const std::string& text);
  const std::string* Find(const char* key) const;

  std::shared_ptr<const SafetensorsFile> file_;
  v1::VersionSummary summary_;
  std::string publisher_;
  std::vector<uint64_t> digests_;
  std::vector<bool> experts_;
  std::map<size_t, ExpertPlace> expert_places_;  // by tensor
};

}  // namespace refit

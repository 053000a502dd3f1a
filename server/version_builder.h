// Turns native tensors into a version: assembles, converts, commits. The one way in, for the wire and for a trainer in
// process.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensor/tensor_spec.h"
#include "server/version_store.h"

namespace refit {

struct BuildOptions {
  std::string model = "default";
  uint64_t version = 0;
  std::string adapter = "gemma4_moe";
  std::optional<DType> dtype;
  std::string exclude_key_regex;
  std::string publisher;
  // Limits on what is declared.
  uint64_t max_tensors = 1'000'000;
  size_t max_name_bytes = kMaxNameBytes;
};

// One open version. Destroying it before Commit aborts the version. Not thread-safe; the store must outlive it.
class VersionBuilder {
 public:
  // Plans and opens. Errors: PlanVersion, FindAdapter (as INVALID_ARGUMENT), PythonRegex::Compile, VersionStore::Open.
  static absl::StatusOr<std::unique_ptr<VersionBuilder>> Open(VersionStore& store, const BuildOptions& options,
                                                              std::vector<TensorSpec> native);
  ~VersionBuilder();

  const std::shared_ptr<Version>& version() const { return version_; }
  const std::vector<TensorSpec>& native() const { return version_->plan().native; }
  // Bytes of the native tensor that have come so far.
  uint64_t received(size_t index) const { return received_[index]; }
  // Index of the native tensor of this name. NOT_FOUND if it was not declared.
  absl::StatusOr<size_t> IndexOf(absl::string_view name) const;

  // The native tensor's bytes from `offset` on, which must be where the last ones ended (OUT_OF_RANGE for a gap, an
  // overlap or an end beyond the tensor); whole elements (INVALID_ARGUMENT). ABORTED if the version was aborted
  // meanwhile.
  absl::Status Append(size_t index, uint64_t offset, absl::Span<const std::byte> bytes);

  // FAILED_PRECONDITION, naming the first tensor that lacks bytes; the version stays open then.
  absl::StatusOr<v1::VersionSummary> Commit();

  // Does nothing once committed.
  void Abort(std::string reason);

 private:
  VersionBuilder(VersionStore& store, std::shared_ptr<Version> version);
  absl::Status CheckRange(size_t index, uint64_t offset, uint64_t size) const;
  absl::Status PublishWithoutData();

  VersionStore& store_;
  const std::shared_ptr<Version> version_;
  std::vector<uint64_t> received_;
  std::unordered_map<std::string, size_t> index_of_;
};

}  // namespace refit

// Receives the manifest of a pull, in parts.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/worker/pull_errors.h"
#include "refit/box.h"
#include "refit/pull.h"
#include "refit/v1/pull.pb.h"
#include "refit/version_summary.h"

namespace refit {

// Checks each entry against the version's header and the request. Options and errors must outlive it.
class ReceivedManifest {
 public:
  ReceivedManifest(const PullOptions& options, const PullErrors& errors);

  // Call it for a stream that begins again.
  void Clear();
  // INTERNAL for a part that breaks the protocol. With the last part the manifest is complete.
  absl::Status Add(const v1::ManifestPart& part, const VersionSummary& version);

  // The tensors to come, in order, as far as received.
  const std::vector<TensorPart>& parts() const { return parts_; }
  // Whether all tensors are requested, and all of them whole.
  bool selects_all() const { return SelectsAllTensors() && !AsksForParts(); }

 private:
  absl::Status AddEntry(const v1::ManifestEntry& entry, const VersionSummary& version);
  absl::StatusOr<TensorPart> PartOf(const v1::ManifestEntry& entry) const;
  absl::Status CheckAskedFor(const TensorPart& part) const;
  absl::Status CheckComplete(const VersionSummary& version) const;

  // Of tensors that are one expert each, a rule leaves those of other parts out.
  bool SelectsAllTensors() const {
    return options_.filter.empty() && options_.names.empty() && (options_.rules.empty() || !has_single_experts_);
  }
  bool AsksForParts() const { return !options_.rules.empty() || !options_.boxes.empty(); }

  const PullOptions& options_;
  const PullErrors& errors_;
  const std::unordered_map<std::string, Box> boxes_;  // requested boxes, by name
  std::vector<TensorPart> parts_;
  bool has_single_experts_ = false;
  uint64_t bytes_ = 0;
};

}  // namespace refit

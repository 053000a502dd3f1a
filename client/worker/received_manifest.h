// The manifest of a pull, as it comes in parts.
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

// Checks each entry against the version's header and against what was asked for. Both options and errors must outlive
// it.
class ReceivedManifest {
 public:
  ReceivedManifest(const PullOptions& options, const PullErrors& errors);

  // For a stream that begins anew.
  void Clear();
  // INTERNAL for a part that breaks the protocol. The last part makes the manifest complete.
  absl::Status Add(const v1::ManifestPart& part, const VersionSummary& version);

  // What will come, in order; so far.
  const std::vector<TensorPart>& parts() const { return parts_; }
  // Whole tensors are asked for, all of them.
  bool selects_all() const { return SelectsAllTensors() && !AsksForParts(); }

 private:
  absl::Status AddEntry(const v1::ManifestEntry& entry, const VersionSummary& version);
  absl::StatusOr<TensorPart> PartOf(const v1::ManifestEntry& entry) const;
  absl::Status CheckAskedFor(const TensorPart& part) const;
  absl::Status CheckComplete(const VersionSummary& version) const;

  bool SelectsAllTensors() const { return options_.filter.empty() && options_.names.empty(); }
  bool AsksForParts() const { return !options_.rules.empty() || !options_.boxes.empty(); }

  const PullOptions& options_;
  const PullErrors& errors_;
  const std::unordered_map<std::string, Box> boxes_;  // asked for, by name
  std::vector<TensorPart> parts_;
  uint64_t bytes_ = 0;
};

}  // namespace refit

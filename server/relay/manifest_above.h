// The manifest of a version of the service above.
#pragma once

#include "absl/status/statusor.h"
#include "common/adapters/plan.h"
#include "refit/limits.h"
#include "refit/v1/types.pb.h"
#include "server/relay/above.h"

namespace refit {

struct ManifestAbove {
  v1::VersionSummary summary;
  VersionPlan plan;  // without native tensors
};

// INTERNAL for a manifest that contradicts itself; RESOURCE_EXHAUSTED for one beyond the limits of this service, which
// the message names; otherwise errors as PullService.GetManifest.
absl::StatusOr<ManifestAbove> GetManifestAbove(const v1::VersionSummary& wanted, const Above& above,
                                               const Limits& limits);

}  // namespace refit

// The client library for at::Tensor.
#pragma once

#include "absl/status/statusor.h"
#include "refit/publisher.h"
#include "refit/subscriber.h"
#include "refit/torch/push.h"

namespace refit {

// Opens a version of these native tensors, pushes them in order, and commits. After an error there is no such version.
// Errors as Publisher::Open, PushTensor and VersionPush::Commit. Any thread may call it.
absl::StatusOr<VersionSummary> PublishStateDict(Publisher& publisher, const PublishOptions& options,
                                                const NamedTensors& tensors);

struct PulledTensors {
  PullResult result;
  // In manifest order, with the shapes of the pulled parts. F8 is returned as bytes if LibTorch does not know it.
  NamedTensors tensors;
};

// Pulls into tensors in host memory that own their memory. Errors as Subscriber::Pull.
absl::StatusOr<PulledTensors> PullTensors(Subscriber& subscriber, const PullOptions& options = {});

}  // namespace refit

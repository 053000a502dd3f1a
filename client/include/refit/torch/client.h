// The client library for at::Tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "refit/publisher.h"
#include "refit/subscriber.h"
#include "refit/torch/tensor.h"

namespace refit {

// In state-dict order.
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Pushes a whole native tensor, or the whole shard of one, under a name that was declared (NOT_FOUND) with its dtype
// and shape (INVALID_ARGUMENT); SpecOf gives what to declare. A contiguous tensor in host memory is borrowed: it must
// not be written to until Commit has returned. Any other is copied first. INVALID_ARGUMENT also for a tensor whose
// memory is not there; see CheckMemory.
absl::Status PushTensor(VersionPush& push, absl::string_view name, const TypedTensor& tensor);

// Opens a version of these native tensors, pushes them in order, and commits. After an error there is no such version.
absl::StatusOr<v1::VersionSummary> PublishStateDict(Publisher& publisher, const PublishOptions& options,
                                                    const NamedTensors& tensors);

struct PulledTensors {
  PullResult result;
  // In manifest order, shaped as the parts that were pulled; F8 as bytes where LibTorch does not know it.
  NamedTensors tensors;
};

// Pulls into tensors in host memory, which own it.
absl::StatusOr<PulledTensors> PullTensors(Subscriber& subscriber, const PullOptions& options = {});

}  // namespace refit

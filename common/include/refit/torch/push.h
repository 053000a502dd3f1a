// Pushing at::Tensors, whichever way a version goes.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "refit/tensor_spec.h"
#include "refit/torch/tensor.h"
#include "refit/version_push.h"

namespace refit {

// In state-dict order.
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// What to declare of these tensors. INVALID_ARGUMENT as SpecOf.
absl::StatusOr<std::vector<TensorSpec>> SpecsOf(const NamedTensors& tensors);

// Pushes a whole native tensor, or the whole shard of one, under a name that was declared (NOT_FOUND) with its dtype
// and shape (INVALID_ARGUMENT); SpecOf gives what to declare. Any device and any strides: what is not contiguous in
// host memory is copied there first. Over the wire a tensor that is so already is borrowed: it must not be written to
// until Commit has returned. In process it was read when this returns. INVALID_ARGUMENT also for a tensor whose memory
// is not there; see CheckMemory. Otherwise errors as VersionPush::Append.
absl::Status PushTensor(VersionPush& push, absl::string_view name, const TypedTensor& tensor);

// Pushes these tensors in order, and commits. After an error the version is aborted.
absl::StatusOr<VersionSummary> PushStateDict(VersionPush& push, const NamedTensors& tensors);

}  // namespace refit

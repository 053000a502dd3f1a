// Writes an HF tensor back into its place in the native tensor.
#pragma once

#include <cstddef>

#include "absl/types/span.h"
#include "common/adapters/plan.h"
#include "refit/tensor_spec.h"

namespace refit {

// `bytes` are the whole HF tensor that `output` makes of `native`, in native.dtype. They go to the output's box in
// `memory`, that of the whole native tensor, and are cast to `dtype`. Not for Transform::kOnes, nor for padded ones.
void WriteHfTensor(const TensorSpec& native, const PlannedOutput& output, absl::Span<const std::byte> bytes,
                   DType dtype, std::byte* memory);

}  // namespace refit

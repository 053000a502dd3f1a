// Synthetic values of tensors. Any part of a tensor can be made by itself, on any machine.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "client/native/native_source.h"
#include "refit/tensor_spec.h"

namespace refit {

// Fills `out` with bytes [offset, offset + out.size()) of the tensor, which need not begin or end with an element.
void FillSynthetic(const SyntheticOptions& options, const TensorSpec& spec, uint64_t offset, absl::Span<std::byte> out);

}  // namespace refit

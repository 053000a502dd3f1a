// The streaming use of a plan: writes a run of a native tensor straight into its place in the HF tensor.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "common/adapters/plan.h"

namespace refit {

// Converts `bytes`, the native tensor's elements from byte offset `native_offset` on, into `hf`, the HF tensor's whole
// memory: gather, transpose and cast in one pass. Offset and length are multiples of the element size and lie within
// the native tensor. Not for Transform::kOnes. Concurrent calls on ranges that do not overlap are safe.
void WriteNativeRange(const TensorSpec& native, const PlannedOutput& output, uint64_t native_offset,
                      absl::Span<const std::byte> bytes, std::byte* hf);

// Which HF bytes are final once native bytes [0, native_end) have all been written, as a prefix length: all that came
// for kPass; whole matrices (the last two dimensions) for kTransposeLastTwo.
uint64_t ConvertedPrefix(const TensorSpec& native, const PlannedOutput& output, uint64_t native_end);

}  // namespace refit

// The streaming use of a plan: writes a run of a native tensor's shard straight into its place in the HF tensor.
#pragma once

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "common/adapters/plan.h"
#include "refit/box.h"

namespace refit {

// Elements of an HF tensor: `count` runs of `length` elements each, their beginnings `stride` elements apart.
struct StridedRuns {
  int64_t first;  // element at which the first run begins
  int64_t count;
  int64_t length;
  int64_t stride;
};

// Converts `bytes`, the elements of `shard` from byte offset `shard_offset` on, into `hf`, the HF tensor's whole
// memory: gather, transpose and cast in one pass, with nothing in between. Tells `written` which elements of the HF
// tensor these became; each element of a shard becomes one of the HF tensor. Offset and length are multiples of the
// element size and lie within the shard. Not for Transform::kOnes. Concurrent calls on ranges that do not overlap, of
// one shard or of several that do not, are safe.
void WriteNativeRange(
    const TensorPart& shard, const PlannedOutput& output, uint64_t shard_offset, absl::Span<const std::byte> bytes,
    std::byte* hf, absl::FunctionRef<void(const StridedRuns&)> written = [](const StridedRuns&) {});

}  // namespace refit

// Converts a run of a native tensor's shard and writes it directly into its place in the HF tensor.
#pragma once

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "common/adapters/plan.h"
#include "refit/box.h"

namespace refit {

// Elements of an HF tensor: `count` runs of `length` elements each. Their first elements are `stride` elements apart.
struct StridedRuns {
  int64_t first;  // element at which the first run begins
  int64_t count;
  int64_t length;
  int64_t stride;
};

// Converts `bytes`, the elements of `shard` from byte offset `shard_offset` on, and writes those that the output has
// into `hf`, the memory of the whole HF tensor. One pass gathers, transposes and casts, without intermediate buffers.
// Calls `written` with the elements of the HF tensor that were written: each element of a shard that is in the output's
// box becomes one of them, and the last ones of a padded dimension also the zeros behind. Offset and length must be
// multiples of the element size and lie within the shard. Not for Transform::kOnes. Concurrent calls are safe if their
// ranges do not overlap, in one shard or in several shards that do not overlap.
void WriteNativeRange(
    const TensorPart& shard, const PlannedOutput& output, uint64_t shard_offset, absl::Span<const std::byte> bytes,
    std::byte* hf, absl::FunctionRef<void(const StridedRuns&)> written = [](const StridedRuns&) {});

// Whether the output has elements of the shard, or may have some of its bytes [offset, offset + size).
bool Needs(const PlannedOutput& output, const TensorPart& shard);
bool Needs(const PlannedOutput& output, const TensorPart& shard, uint64_t offset, uint64_t size);

}  // namespace refit

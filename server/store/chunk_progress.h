// Tracks which chunks of an HF tensor are complete while shards are written to it in any order.
#pragma once

#include <cstdint>

#include "absl/container/inlined_vector.h"
#include "common/adapters/native_range_writer.h"

namespace refit {

// Counts the bytes written to some chunks of one tensor. It is separate from the tensor, so that a writer takes the
// tensor's lock once for a batch.
class ChunkCounts {
 public:
  // For a tensor of `bytes` bytes with elements of `element_bytes`.
  ChunkCounts(uint64_t bytes, uint64_t element_bytes, uint64_t chunk_bytes)
      : bytes_(bytes), element_bytes_(element_bytes), chunk_bytes_(chunk_bytes) {}

  void Add(const StridedRuns& runs);

  uint64_t first_chunk() const { return first_; }
  // Bytes for each chunk, from first_chunk() on.
  const absl::InlinedVector<uint64_t, 2>& counts() const { return counts_; }

 private:
  void AddTo(uint64_t chunk, uint64_t bytes);

  const uint64_t bytes_;
  const uint64_t element_bytes_;
  const uint64_t chunk_bytes_;
  uint64_t first_ = 0;
  absl::InlinedVector<uint64_t, 2> counts_;
};

// How many bytes each chunk of a tensor still lacks. Not thread-safe.
class ChunkProgress {
 public:
  ChunkProgress(uint64_t bytes, uint64_t chunk_bytes);

  using Chunks = absl::InlinedVector<uint64_t, 2>;

  // Subtracts what was written. Every byte of a tensor must be counted once. Returns the chunks that are now complete.
  Chunks Take(const ChunkCounts& counts);

 private:
  absl::InlinedVector<uint64_t, 1> missing_;  // bytes for each chunk
};

}  // namespace refit

// Packed chunks of boxes, and memory to pack them into.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/tensor/buffer_pool.h"
#include "server/pull/chunk_cache.h"

namespace refit {

// Thread-safe.
class PackedChunks : public ChunkCache {
 public:
  explicit PackedChunks(uint64_t max_bytes) : ChunkCache(max_bytes), pool_(max_bytes) {}

  absl::StatusOr<std::shared_ptr<Buffer>> NewBuffer(uint64_t bytes) { return pool_.Get(bytes); }

 private:
  BufferPool pool_;
};

}  // namespace refit

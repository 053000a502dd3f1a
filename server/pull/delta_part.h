// What changes a part of one version into the same part of another, chunk by chunk.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/delta/delta_encoder.h"
#include "server/pull/chunk_cache.h"
#include "server/store/version.h"

namespace refit {

// One chunk, as it is sent to a worker that has the base.
struct DeltaChunk {
  EncodedDelta::Kind kind = EncodedDelta::Kind::kRaw;
  std::shared_ptr<const Buffer> payload;  // of kDelta
  uint64_t digest = 0;                    // of the payload
  uint64_t changed = 0;                   // elements
};

// Each chunk is encoded when the first pull asks for it, and kept for all others as long as the cache has room.
// Thread-safe.
class DeltaPart {
 public:
  // Both parts have this many chunks, and elements of this size in bytes. `cache` must outlive it.
  DeltaPart(uint64_t chunks, size_t element_size, ChunkCache& cache);
  ~DeltaPart();
  DeltaPart(const DeltaPart&) = delete;
  DeltaPart& operator=(const DeltaPart&) = delete;

  // `base` and `now` are this chunk of the two. kRaw if a delta would not be smaller.
  DeltaChunk Get(uint64_t chunk, const Version::Chunk& base, const Version::Chunk& now) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // What is known of a chunk once it was encoded. The payload is in the cache, or was dropped.
  struct Slot {
    bool encoding = false;  // by another thread
    bool encoded = false;
    EncodedDelta::Kind kind = EncodedDelta::Kind::kRaw;
    uint64_t digest = 0;
    uint64_t changed = 0;
  };
  DeltaChunk Encode(absl::Span<const std::byte> base, absl::Span<const std::byte> now) const;

  const size_t element_size_;
  ChunkCache& cache_;

  absl::Mutex mutex_;
  std::vector<Slot> slots_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit

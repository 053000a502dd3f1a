// What changes a part of one version into the same part of another, chunk by chunk.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/delta/delta_encoder.h"
#include "server/pull/chunk_cache.h"

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
  // Both parts have this many chunks. `cache` must outlive it.
  DeltaPart(uint64_t chunks, ChunkCache& cache);
  ~DeltaPart();
  DeltaPart(const DeltaPart&) = delete;
  DeltaPart& operator=(const DeltaPart&) = delete;

  // Calls `encode` if the chunk was not encoded before, or its payload was dropped since. An error counts as kRaw.
  DeltaChunk Get(uint64_t chunk, absl::FunctionRef<absl::StatusOr<EncodedDelta>()> encode) ABSL_LOCKS_EXCLUDED(mutex_);
  // kRaw unless the chunk was encoded, and its payload is still there.
  DeltaChunk Find(uint64_t chunk) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether it has payloads.
  bool is_kept() const { return cache_.Holds(this); }

 private:
  // What is known of a chunk once it was encoded. The payload is in the cache, or was dropped.
  struct Slot {
    bool encoding = false;  // by another thread
    bool encoded = false;
    EncodedDelta::Kind kind = EncodedDelta::Kind::kRaw;
    uint64_t digest = 0;
    uint64_t changed = 0;
  };
  DeltaChunk Find(uint64_t chunk, const Slot& slot) const;

  ChunkCache& cache_;

  mutable absl::Mutex mutex_;
  std::vector<Slot> slots_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit

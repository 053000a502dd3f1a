// A cache of packed chunks, for other pulls that request the same. The least recently used are dropped first.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/tensor/buffer_pool.h"

namespace refit {

class VersionPart;

// Thread-safe.
class PackedChunks {
 public:
  // Keeps at most this many bytes, not counting what gRPC is still sending.
  explicit PackedChunks(uint64_t max_bytes) : max_bytes_(max_bytes), pool_(max_bytes) {}

  // Memory to pack a chunk into.
  absl::StatusOr<std::shared_ptr<Buffer>> NewBuffer(uint64_t bytes) { return pool_.Get(bytes); }

  // Null if the chunk is not cached.
  std::shared_ptr<const Buffer> Find(const VersionPart* part, uint64_t chunk) ABSL_LOCKS_EXCLUDED(mutex_);
  void Insert(const VersionPart* part, uint64_t chunk, std::shared_ptr<const Buffer> data) ABSL_LOCKS_EXCLUDED(mutex_);
  // Drops all chunks of the part.
  void Drop(const VersionPart* part) ABSL_LOCKS_EXCLUDED(mutex_);

  // How many bytes were packed since the start, and how many were found in the cache.
  uint64_t packed_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);
  uint64_t shared_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Key = std::pair<const VersionPart*, uint64_t>;
  struct Entry {
    Key key;
    std::shared_ptr<const Buffer> data;
  };
  void Erase(std::list<Entry>::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const uint64_t max_bytes_;
  BufferPool pool_;

  mutable absl::Mutex mutex_;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // the least recently used first
  std::map<Key, std::list<Entry>::iterator> index_ ABSL_GUARDED_BY(mutex_);
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t packed_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t shared_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace refit

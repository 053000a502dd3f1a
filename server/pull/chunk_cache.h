// A cache of chunks that were made for pulls, for other pulls that request the same. The least recently used are
// dropped first.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "refit/buffer.h"

namespace refit {

// Thread-safe.
class ChunkCache {
 public:
  // Keeps at most this many bytes, not counting what gRPC is still sending.
  explicit ChunkCache(uint64_t max_bytes) : max_bytes_(max_bytes) {}

  // `part`: whatever the chunks are of. Null if the chunk is not cached.
  std::shared_ptr<const Buffer> Find(const void* part, uint64_t chunk) ABSL_LOCKS_EXCLUDED(mutex_);
  void Insert(const void* part, uint64_t chunk, std::shared_ptr<const Buffer> data) ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether it has a chunk of the part.
  bool Holds(const void* part) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Drops all chunks of the part. Call it before the part is destroyed.
  void Drop(const void* part) ABSL_LOCKS_EXCLUDED(mutex_);

  uint64_t max_bytes() const { return max_bytes_; }
  // How many bytes were inserted since the start, and how many were found.
  uint64_t inserted_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);
  uint64_t found_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Key = std::pair<const void*, uint64_t>;
  struct Entry {
    Key key;
    std::shared_ptr<const Buffer> data;
  };
  void Erase(std::list<Entry>::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const uint64_t max_bytes_;

  mutable absl::Mutex mutex_;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // the least recently used first
  std::map<Key, std::list<Entry>::iterator> index_ ABSL_GUARDED_BY(mutex_);
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t inserted_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t found_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace refit

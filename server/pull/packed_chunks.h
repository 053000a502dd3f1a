// Chunks that were packed for a pull, kept for others that will ask for the same: the least recently used go first.
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
  // Keeps at most so many bytes, beyond what gRPC still sends.
  explicit PackedChunks(uint64_t max_bytes) : max_bytes_(max_bytes), pool_(max_bytes) {}

  // Memory to pack a chunk into.
  absl::StatusOr<std::shared_ptr<Buffer>> NewBuffer(uint64_t bytes) { return pool_.Get(bytes); }

  // Null if it is not there, any more.
  std::shared_ptr<const Buffer> Find(const VersionPart* part, uint64_t chunk) ABSL_LOCKS_EXCLUDED(mutex_);
  void Insert(const VersionPart* part, uint64_t chunk, std::shared_ptr<const Buffer> data) ABSL_LOCKS_EXCLUDED(mutex_);
  // Forgets all chunks of the part.
  void Drop(const VersionPart* part) ABSL_LOCKS_EXCLUDED(mutex_);

  // Bytes that were packed since the beginning, and that were found packed.
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

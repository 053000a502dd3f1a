// The parts of tensors that pulls request. Pulls that request the same part share one object.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "refit/box.h"
#include "server/pull/packed_chunks.h"
#include "server/pull/version_part.h"

namespace refit {

// Thread-safe.
class PartTable {
 public:
  // Keeps packed chunks of up to this many bytes.
  explicit PartTable(uint64_t packed_bytes) : packed_(packed_bytes) {}

  std::shared_ptr<VersionPart> Get(const std::shared_ptr<Version>& version, size_t tensor, const Box& box)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Null if no pull has requested it yet.
  std::shared_ptr<VersionPart> Find(const Version& version, size_t tensor, const Box& box) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  const PackedChunks& packed() const { return packed_; }

 private:
  using Key = std::tuple<const Version*, size_t, Box>;
  void ForgetUnused() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  PackedChunks packed_;

  mutable absl::Mutex mutex_;
  // An unused part is kept for its digests and packed chunks, as long as its version can be pulled.
  std::map<Key, std::shared_ptr<VersionPart>> parts_ ABSL_GUARDED_BY(mutex_);
  size_t sweep_at_ ABSL_GUARDED_BY(mutex_) = 1024;  // when there are this many parts, unused ones are removed
};

}  // namespace refit

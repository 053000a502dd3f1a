// The deltas that pulls request. Pulls that request the same share one object.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "refit/box.h"
#include "server/pull/chunk_cache.h"
#include "server/pull/delta_part.h"
#include "server/store/version.h"

namespace refit {

// Thread-safe.
class DeltaTable {
 public:
  // Keeps payloads of up to this many bytes. 0: the service sends no deltas.
  explicit DeltaTable(uint64_t delta_bytes) : cache_(delta_bytes) {}

  // Of this box of a tensor of `version`, and of the same box of the tensor of that name, dtype and shape in `base`.
  std::shared_ptr<DeltaPart> Get(const std::shared_ptr<Version>& base, const std::shared_ptr<Version>& version,
                                 size_t tensor, const Box& box) ABSL_LOCKS_EXCLUDED(mutex_);

  // The way from `base` to `version` by deltas: versions from `base` on, with deltas from each to the next that pulls
  // have requested, and as the last one a committed version, whose deltas to `version` can be encoded. That is `base`
  // itself if it is committed. As few as possible; none if there is no way.
  std::vector<std::shared_ptr<Version>> Chain(const std::shared_ptr<Version>& base, const Version& version) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  bool is_used() const { return cache_.max_bytes() > 0; }
  const ChunkCache& cache() const { return cache_; }

 private:
  // From a base to a version. Both are kept, so that nobody else gets the addresses that are in the key.
  struct Step {
    std::shared_ptr<Version> base;
    std::shared_ptr<Version> version;
    std::map<std::pair<size_t, Box>, std::shared_ptr<DeltaPart>> parts;  // by the version's tensor
  };
  void ForgetUnused() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::shared_ptr<Version>> NextTo(const Version& version) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ChunkCache cache_;

  mutable absl::Mutex mutex_;
  // Unused parts are kept for their payloads: if the base can still be pulled, for workers that have it; otherwise for
  // those that are more versions behind.
  std::map<std::pair<const Version*, const Version*>, Step> steps_ ABSL_GUARDED_BY(mutex_);
  size_t parts_ ABSL_GUARDED_BY(mutex_) = 0;        // of all steps
  size_t sweep_at_ ABSL_GUARDED_BY(mutex_) = 1024;  // when there are this many, unused ones are removed
};

}  // namespace refit

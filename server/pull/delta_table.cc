#include "server/pull/delta_table.h"

#include <algorithm>
#include <utility>

#include "common/wire/digest.h"

namespace refit {

std::shared_ptr<DeltaPart> DeltaTable::Get(const std::shared_ptr<Version>& base,
                                           const std::shared_ptr<Version>& version, size_t tensor, const Box& box) {
  const TensorPart part{version->spec(tensor), box};
  absl::MutexLock lock(&mutex_);
  Entry& entry = parts_[{base.get(), version.get(), tensor, box}];
  if (entry.part == nullptr) {
    entry = {base, version,
             std::make_shared<DeltaPart>(ChunkCount(part.ByteSize(), version->chunk_bytes()),
                                         ElementSize(part.tensor.dtype), cache_)};
  }
  std::shared_ptr<DeltaPart> result = entry.part;
  ForgetUnused();
  return result;
}

void DeltaTable::ForgetUnused() {
  if (parts_.size() < sweep_at_) return;
  for (auto it = parts_.begin(); it != parts_.end();) {
    const Entry& entry = it->second;
    const bool over = !entry.base->CheckPullable().ok() || !entry.version->CheckPullable().ok();
    it = entry.part.use_count() == 1 && over ? parts_.erase(it) : std::next(it);
  }
  sweep_at_ = std::max<size_t>(1024, 2 * parts_.size());
}

}  // namespace refit

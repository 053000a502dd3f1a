#include "server/pull/delta_table.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "common/wire/digest.h"

namespace refit {

std::shared_ptr<DeltaPart> DeltaTable::Get(const std::shared_ptr<Version>& base,
                                           const std::shared_ptr<Version>& version, size_t tensor, const Box& box) {
  const TensorPart part{version->spec(tensor), box};
  const uint64_t chunks = ChunkCount(part.ByteSize(), version->chunk_bytes());
  absl::MutexLock lock(&mutex_);
  Entry& entry = parts_[{base.get(), version.get(), tensor, box}];
  if (entry.part == nullptr) entry = {base, version, std::make_shared<DeltaPart>(chunks, cache_)};
  std::shared_ptr<DeltaPart> result = entry.part;
  ForgetUnused();
  return result;
}

// The versions that have deltas from this one.
std::vector<std::shared_ptr<Version>> DeltaTable::NextTo(const Version& version) const {
  std::vector<std::shared_ptr<Version>> next;
  for (auto it = parts_.lower_bound({&version, nullptr, 0, Box()}); it != parts_.end(); ++it) {
    if (it->second.base.get() != &version) break;
    if (next.empty() || next.back() != it->second.version) next.push_back(it->second.version);
  }
  return next;
}

std::vector<std::shared_ptr<Version>> DeltaTable::Chain(const std::shared_ptr<Version>& base,
                                                        const Version& version) const {
  if (base->state() == v1::VERSION_STATE_COMMITTED) return {base};
  absl::MutexLock lock(&mutex_);
  std::map<const Version*, std::shared_ptr<Version>> before = {{base.get(), nullptr}};
  for (std::deque<std::shared_ptr<Version>> reached = {base}; !reached.empty(); reached.pop_front()) {
    const std::shared_ptr<Version> at = reached.front();
    if (at.get() == &version) continue;
    if (at->state() == v1::VERSION_STATE_COMMITTED) {
      std::vector<std::shared_ptr<Version>> chain;
      for (std::shared_ptr<Version> link = at; link != nullptr; link = before.at(link.get())) chain.push_back(link);
      std::reverse(chain.begin(), chain.end());
      return chain;
    }
    for (const std::shared_ptr<Version>& next : NextTo(*at)) {
      if (before.try_emplace(next.get(), at).second) reached.push_back(next);
    }
  }
  return {};
}

void DeltaTable::ForgetUnused() {
  if (parts_.size() < sweep_at_) return;
  for (auto it = parts_.begin(); it != parts_.end();) {
    const Entry& entry = it->second;
    const bool may_grow = entry.base->CheckPullable().ok() && entry.version->CheckPullable().ok();
    const bool unused = entry.part.use_count() == 1 && !may_grow && !entry.part->is_kept();
    it = unused ? parts_.erase(it) : std::next(it);
  }
  sweep_at_ = std::max<size_t>(1024, 2 * parts_.size());
}

}  // namespace refit

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
  Step& step = steps_[{base.get(), version.get()}];
  step.base = base;
  step.version = version;
  std::shared_ptr<DeltaPart>& kept = step.parts[{tensor, box}];
  if (kept == nullptr) {
    kept = std::make_shared<DeltaPart>(chunks, cache_);
    ++parts_;
  }
  std::shared_ptr<DeltaPart> result = kept;
  ForgetUnused();
  return result;
}

// The versions that have deltas from this one.
std::vector<std::shared_ptr<Version>> DeltaTable::NextTo(const Version& version) const {
  std::vector<std::shared_ptr<Version>> next;
  for (auto it = steps_.lower_bound({&version, nullptr}); it != steps_.end() && it->first.first == &version; ++it) {
    next.push_back(it->second.version);
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
  if (parts_ < sweep_at_) return;
  parts_ = 0;
  for (auto it = steps_.begin(); it != steps_.end();) {
    Step& step = it->second;
    const bool may_grow = step.base->CheckPullable().ok() && step.version->CheckPullable().ok();
    for (auto part = step.parts.begin(); part != step.parts.end() && !may_grow;) {
      const bool unused = part->second.use_count() == 1 && !part->second->is_kept();
      part = unused ? step.parts.erase(part) : std::next(part);
    }
    parts_ += step.parts.size();
    it = step.parts.empty() ? steps_.erase(it) : std::next(it);
  }
  sweep_at_ = std::max<size_t>(1024, 2 * parts_);
}

}  // namespace refit

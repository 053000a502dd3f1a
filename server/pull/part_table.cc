#include "server/pull/part_table.h"

#include <algorithm>

namespace refit {
namespace {

constexpr size_t kMaxUnusedParts = 1 << 16;

}  // namespace

std::shared_ptr<VersionPart> PartTable::Get(const std::shared_ptr<Version>& version, size_t tensor, const Box& box) {
  absl::MutexLock lock(&mutex_);
  std::shared_ptr<VersionPart>& part = parts_[{version.get(), tensor, box}];
  if (part != nullptr) return part;
  part = std::make_shared<VersionPart>(version, tensor, box, packed_);
  std::shared_ptr<VersionPart> result = part;
  ForgetUnused();
  return result;
}

std::shared_ptr<VersionPart> PartTable::Find(const Version& version, size_t tensor, const Box& box) const {
  absl::MutexLock lock(&mutex_);
  const auto found = parts_.find({&version, tensor, box});
  return found == parts_.end() ? nullptr : found->second;
}

void PartTable::ForgetUnused() {
  if (parts_.size() < sweep_at_) return;
  for (auto it = parts_.begin(); it != parts_.end();) {
    const bool unused = it->second.use_count() == 1;
    const bool over = !it->second->version().CheckPullable().ok() || parts_.size() > kMaxUnusedParts;
    it = unused && over ? parts_.erase(it) : std::next(it);
  }
  sweep_at_ = std::max<size_t>(1024, 2 * parts_.size());
}

}  // namespace refit

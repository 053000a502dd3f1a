#include "server/lease_table.h"

#include <utility>

namespace refit {

uint64_t LeaseTable::Add(std::function<void()> on_end) {
  absl::MutexLock lock(&mutex_);
  uint64_t lease = 0;
  while (lease == 0 || leases_.contains(lease)) lease = absl::Uniform<uint64_t>(random_);
  leases_.emplace(lease, std::move(on_end));
  return lease;
}

void LeaseTable::Remove(uint64_t lease) {
  absl::MutexLock lock(&mutex_);
  leases_.erase(lease);
}

bool LeaseTable::End(uint64_t lease) {
  std::function<void()> on_end;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = leases_.find(lease);
    if (found == leases_.end()) return false;
    on_end = std::move(found->second);
    leases_.erase(found);
  }
  on_end();
  return true;
}

void LeaseTable::EndAll() {
  std::map<uint64_t, std::function<void()>> ended;
  {
    absl::MutexLock lock(&mutex_);
    ended.swap(leases_);
  }
  for (const auto& [lease, on_end] : ended) on_end();
}

}  // namespace refit

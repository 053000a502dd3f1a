#include "server/process/end_table.h"

#include <utility>

namespace refit {

uint64_t EndTable::Add(std::function<void()> on_end) {
  absl::MutexLock lock(&mutex_);
  if (over_) return 0;
  uint64_t number = 0;
  while (number == 0 || calls_.contains(number)) number = absl::Uniform<uint64_t>(random_);
  calls_.emplace(number, std::move(on_end));
  return number;
}

void EndTable::Remove(uint64_t number) {
  absl::MutexLock lock(&mutex_);
  calls_.erase(number);
}

bool EndTable::End(uint64_t number) {
  std::function<void()> on_end;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = calls_.find(number);
    if (found == calls_.end()) return false;
    on_end = std::move(found->second);
    calls_.erase(found);
  }
  on_end();
  return true;
}

void EndTable::EndAll() {
  std::map<uint64_t, std::function<void()>> ended;
  {
    absl::MutexLock lock(&mutex_);
    over_ = true;
    ended.swap(calls_);
  }
  for (const auto& [number, on_end] : ended) on_end();
}

}  // namespace refit

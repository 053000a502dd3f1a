#include "common/tensor/kernel_choice.h"

#include <algorithm>

namespace refit {

size_t WayTrial::Next() {
  if (const std::optional<size_t> way = chosen(); way.has_value()) return *way;
  const std::lock_guard lock(mutex_);
  return begun_++ % kTransposeWays.size();
}

void WayTrial::Took(size_t way, uint64_t bytes, std::chrono::nanoseconds time) {
  if (chosen().has_value()) return;
  const double rate = static_cast<double>(bytes) / static_cast<double>(std::max<int64_t>(1, time.count()));
  const std::lock_guard lock(mutex_);
  best_rates_[way] = std::max(best_rates_[way], rate);
  if (++ended_ == kTurns * kTransposeWays.size()) Decide();
}

std::optional<size_t> WayTrial::chosen() const {
  const size_t way = chosen_.load(std::memory_order_relaxed);
  return way == kUndecided ? std::nullopt : std::optional(way);
}

void WayTrial::Decide() {
  const auto best = std::max_element(best_rates_.begin(), best_rates_.end());
  const bool clearly = *best > kClearly * best_rates_.front();
  chosen_.store(clearly ? static_cast<size_t>(best - best_rates_.begin()) : 0, std::memory_order_relaxed);
}

}  // namespace refit

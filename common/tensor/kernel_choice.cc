#include "common/tensor/kernel_choice.h"

#include <algorithm>
#include <string>
#include <vector>

#include "common/tensor/kernels.h"

namespace refit {
namespace {

std::optional<size_t> forced_way;

// A cast takes more work, so another way may be the fastest.
WayTrial& TrialOf(DType from, DType to) {
  static WayTrial plain;
  static WayTrial cast;
  return from == to ? plain : cast;
}

}  // namespace

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

void TransposeTheBestWay(DType from, DType to, uint64_t bytes, absl::FunctionRef<void(const TransposeWay&)> transpose) {
  if (forced_way.has_value() || bytes < kPastCacheBytes) return transpose(kTransposeWays[forced_way.value_or(0)]);
  WayTrial& trial = TrialOf(from, to);
  const size_t way = trial.Next();
  if (trial.chosen().has_value()) return transpose(kTransposeWays[way]);
  const auto begin = std::chrono::steady_clock::now();
  transpose(kTransposeWays[way]);
  trial.Took(way, bytes, std::chrono::steady_clock::now() - begin);
}

std::vector<std::string> TransposeWays() {
  std::vector<std::string> names;
  names.reserve(kTransposeWays.size());
  for (const TransposeWay& way : kTransposeWays) names.emplace_back(way.name);
  return names;
}

bool UseTransposeWay(const std::string& name) {
  forced_way.reset();
  for (size_t way = 0; way < kTransposeWays.size(); ++way) {
    if (name == kTransposeWays[way].name) forced_way = way;
  }
  return name.empty() || forced_way.has_value();
}

std::string ChosenTransposeWay(DType from, DType to) {
  const std::optional<size_t> way = TrialOf(from, to).chosen();
  return way.has_value() ? kTransposeWays[*way].name : "";
}

}  // namespace refit

#include "server/access/counters.h"

#include "server/access/limit_reached.h"

namespace refit {

void FailureCount::Add(const absl::Status& status) {
  const auto code = static_cast<size_t>(status.raw_code());
  if (!status.ok() && code < kCodes) ++counts_[code];
}

std::map<std::string, uint64_t> FailureCount::Get() const {
  std::map<std::string, uint64_t> counts;
  for (size_t code = 0; code < kCodes; ++code) {
    const uint64_t count = counts_[code];
    if (count != 0) counts[absl::StatusCodeToString(static_cast<absl::StatusCode>(code))] = count;
  }
  return counts;
}

void LimitCount::Add(const absl::Status& status) {
  const std::optional<std::string> limit = LimitOf(status);
  if (!limit.has_value()) return;
  absl::MutexLock lock(&mutex_);
  ++counts_[*limit];
}

std::map<std::string, uint64_t> LimitCount::Get() const {
  absl::MutexLock lock(&mutex_);
  return counts_;
}

}  // namespace refit

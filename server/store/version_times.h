// When what became of a version, and how long it took.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

#include "refit/v1/types.pb.h"

namespace refit {

// By the steady clock, but for the moment at which it was opened. Not thread-safe, but for Converted.
class VersionTimes {
 public:
  using Clock = std::chrono::steady_clock;

  // Opened now.
  VersionTimes();

  // All ranks have declared.
  void Assembled();
  // Native bytes came, and have been converted since `begin`.
  void Converted(Clock::time_point begin);
  // Committed or aborted.
  void Closed() { closed_at_ = Clock::now(); }

  void Fill(v1::VersionSummary& summary) const;

 private:
  const int64_t opened_at_ns_;  // the time of day
  const Clock::time_point opened_at_;
  std::optional<Clock::time_point> assembled_at_;
  std::atomic<Clock::time_point> received_at_{};  // the last bytes so far
  std::atomic<uint64_t> convert_ns_{0};           // sum over all threads
  std::optional<Clock::time_point> closed_at_;
};

}  // namespace refit

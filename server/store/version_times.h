// Records when a version's phases ended, and how long they took.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

#include "refit/v1/types.pb.h"

namespace refit {

// Times are of the steady clock, except the time of opening. Not thread-safe, except Converted.
class VersionTimes {
 public:
  using Clock = std::chrono::steady_clock;

  // The version is opened now.
  VersionTimes();

  // Call it when all ranks have declared their shards.
  void Assembled();
  // Call it when native bytes have arrived and were converted since `begin`.
  void Converted(Clock::time_point begin);
  // Call it at the commit or abort.
  void Closed() { closed_at_ = Clock::now(); }

  void Fill(v1::VersionSummary& summary) const;

 private:
  const int64_t opened_at_ns_;  // wall-clock time
  const Clock::time_point opened_at_;
  std::optional<Clock::time_point> assembled_at_;
  std::atomic<Clock::time_point> received_at_{};  // of the last bytes so far
  std::atomic<uint64_t> convert_ns_{0};           // sum over all threads
  std::optional<Clock::time_point> closed_at_;
};

}  // namespace refit

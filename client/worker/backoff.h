// Pauses between attempts: longer each time, never for ever.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "absl/random/random.h"
#include "client/calls/stop_flag.h"

namespace refit {

// Doubles from `first` to `longest`; each pause is between half of that and all of it, so that a fleet which lost its
// service does not come back in one instant. One thread at a time.
class Backoff {
 public:
  Backoff(std::chrono::nanoseconds first, std::chrono::nanoseconds longest) : first_(first), longest_(longest) {
    Reset();
  }

  // After a success.
  void Reset() { next_ = first_; }

  // False if it was, or is, stopped.
  bool Wait(StopFlag& stop) {
    const auto pause = std::chrono::nanoseconds(absl::Uniform<int64_t>(random_, next_.count() / 2, next_.count() + 1));
    next_ = std::min(longest_, 2 * next_);
    return !stop.WaitFor(pause);
  }

 private:
  const std::chrono::nanoseconds first_;
  const std::chrono::nanoseconds longest_;
  std::chrono::nanoseconds next_{0};
  absl::BitGen random_;
};

}  // namespace refit

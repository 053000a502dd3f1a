// Pauses between attempts, which grow up to a limit.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "absl/random/random.h"
#include "client/calls/stop_flag.h"

namespace refit {

// Pauses double from `first` to `longest`. Each is random between half and all of that, so that the workers of a fleet
// that lost its service do not all reconnect at once. Use it from one thread at a time.
class Backoff {
 public:
  Backoff(std::chrono::nanoseconds first, std::chrono::nanoseconds longest) : first_(first), longest_(longest) {
    Reset();
  }

  // Call it after a success.
  void Reset() { next_ = first_; }

  // False if stopped, before or during the wait.
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

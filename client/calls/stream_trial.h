// Finds out how many connections pay.
#pragma once

#include <cstddef>
#include <mutex>

namespace refit {

// Begins with one, and doubles their number as long as that is worth it. Thread-safe.
class StreamTrial {
 public:
  // How many to use now, and whether that is the answer.
  size_t streams() const {
    const std::lock_guard lock(mutex_);
    return streams_;
  }
  bool is_settled() const {
    const std::lock_guard lock(mutex_);
    return settled_;
  }

  // So many bytes a second were moved over `streams` connections.
  void Note(size_t streams, double rate) {
    const std::lock_guard lock(mutex_);
    if (settled_ || streams != streams_) return;
    settled_ = rate < kWorthIt * best_rate_ || streams_ == kMost;
    if (rate >= kWorthIt * best_rate_) {
      best_rate_ = rate;
      best_ = streams_;
    }
    streams_ = settled_ ? best_ : 2 * streams_;
  }

 private:
  static constexpr size_t kMost = 8;
  static constexpr double kWorthIt = 1.1;

  mutable std::mutex mutex_;
  size_t streams_ = 1;
  size_t best_ = 1;
  double best_rate_ = 0;
  bool settled_ = false;
};

}  // namespace refit

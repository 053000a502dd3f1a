// A flag that ends waits early.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace refit {

// Tells waiting threads to stop. It cannot be reset. Thread-safe.
class StopFlag {
 public:
  void Stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }
  bool stopped() const {
    const std::lock_guard lock(mutex_);
    return stopped_;
  }
  // Returns true at once when stopped, false after `duration`.
  bool WaitFor(std::chrono::duration<double> duration) {
    std::unique_lock lock(mutex_);
    const auto until =
        std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(duration);
    return changed_.wait_until(lock, until, [this] { return stopped_; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
};

}  // namespace refit

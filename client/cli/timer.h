// Waits that end early when they should.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace refit::cli {

// Tells one or more waiting threads to stop. Thread-safe.
class StopSignal {
 public:
  void Stop();
  // True, at once, when stopped; false after `duration`.
  bool WaitFor(std::chrono::duration<double> duration);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
};

// A deadline for calls that have none of their own: runs `action` once, from another thread, when `after` has passed,
// unless it is destroyed before.
class Timer {
 public:
  Timer(std::chrono::duration<double> after, std::function<void()> action);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  bool expired() const { return expired_; }

 private:
  StopSignal stop_;
  std::atomic<bool> expired_{false};
  std::thread thread_;
};

}  // namespace refit::cli

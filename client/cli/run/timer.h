// Deadlines for calls that have none of their own.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "client/calls/stop_flag.h"

namespace refit::cli {

// Runs `action` once, from another thread, when `after` has passed,
// unless it is destroyed before.
class Timer {
 public:
  Timer(std::chrono::duration<double> after, std::function<void()> action);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  bool expired() const { return expired_; }

 private:
  StopFlag stop_;
  std::atomic<bool> expired_{false};
  std::thread thread_;
};

}  // namespace refit::cli

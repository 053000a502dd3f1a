// A timer, for calls that have no deadline of their own.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "client/calls/stop_flag.h"

namespace refit::cli {

// Calls `action` once, from another thread, after `after`. If the timer is destroyed earlier, it does not.
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

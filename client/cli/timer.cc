#include "client/cli/timer.h"

#include <utility>

namespace refit::cli {

void StopSignal::Stop() {
  const std::lock_guard<std::mutex> lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

bool StopSignal::WaitFor(std::chrono::duration<double> duration) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto until =
      std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(duration);
  return changed_.wait_until(lock, until, [this] { return stopped_; });
}

Timer::Timer(std::chrono::duration<double> after, std::function<void()> action)
    : thread_([this, after, action = std::move(action)] {
        if (stop_.WaitFor(after)) return;
        expired_ = true;
        action();
      }) {}

Timer::~Timer() {
  stop_.Stop();
  thread_.join();
}

}  // namespace refit::cli

#include "client/cli/run/timer.h"

#include <utility>

namespace refit::cli {

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

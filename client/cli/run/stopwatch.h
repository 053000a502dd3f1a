// Measures how long phases take.
#pragma once

#include <chrono>
#include <utility>

namespace refit::cli {

// Sums the time of the functions that it runs.
class Stopwatch {
 public:
  template <typename Function>
  auto Time(Function&& function) {
    const Lap lap(*this);
    return std::forward<Function>(function)();
  }
  double seconds() const { return std::chrono::duration<double>(sum_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Lap {
    explicit Lap(Stopwatch& stopwatch) : watch(stopwatch), begin(Clock::now()) {}
    ~Lap() { watch.sum_ += Clock::now() - begin; }
    Lap(const Lap&) = delete;
    Lap& operator=(const Lap&) = delete;
    Stopwatch& watch;
    Clock::time_point begin;
  };
  Clock::duration sum_{0};
};

}  // namespace refit::cli

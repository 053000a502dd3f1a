#include "common/net/clock_steps.h"

#include <chrono>
#include <utility>

#include "common/net/wall_clock.h"

// gRPC's own, of which no public header knows; absent from later releases.
extern void grpc_kick_poller() __attribute__((weak));

namespace refit {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kInterval{250};
// NTP's slewing moves the clock by half a thousandth; what is less than this is no step.
constexpr std::chrono::milliseconds kStep{20};

std::chrono::nanoseconds WallAheadOfSteady() {
  return std::chrono::nanoseconds(UnixNanos()) - steady_clock::now().time_since_epoch();
}

}  // namespace

std::shared_ptr<const ClockSteps> ClockSteps::Watch() {
  static std::mutex mutex;
  static std::weak_ptr<const ClockSteps> running;
  const std::lock_guard lock(mutex);
  std::shared_ptr<const ClockSteps> steps = running.lock();
  if (steps == nullptr) running = steps = std::make_shared<const ClockSteps>();
  return steps;
}

ClockSteps::ClockSteps() : thread_([this] { Run(); }) {}

ClockSteps::~ClockSteps() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  ending_.notify_all();
  thread_.join();
}

void ClockSteps::Run() {
  std::chrono::nanoseconds ahead = WallAheadOfSteady();
  std::unique_lock lock(mutex_);
  while (!ending_.wait_for(lock, kInterval, [this] { return ended_; })) {
    const std::chrono::nanoseconds before = std::exchange(ahead, WallAheadOfSteady());
    if (ahead < before - kStep && grpc_kick_poller != nullptr) grpc_kick_poller();
  }
}

}  // namespace refit

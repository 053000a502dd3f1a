#include "common/net/clock_steps.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>

#include "common/net/wall_clock.h"

// gRPC's own, of which no public header knows: has the thread of its timers look at them. Absent from later releases.
extern void grpc_kick_poller() __attribute__((weak));

namespace refit {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kInterval{250};
// A channel's attempt to connect gets so long: what resets its backoff begins the attempt anew.
constexpr std::chrono::seconds kAttempt{3};
// NTP's slewing moves the clock by half a thousandth; what is less than this is no step.
constexpr std::chrono::milliseconds kStep{20};

int64_t WallAheadOfSteady() {
  return UnixNanos() - std::chrono::nanoseconds(steady_clock::now().time_since_epoch()).count();
}

// The most that it was in this process, which gRPC's threads outlive every channel in. Nanoseconds.
std::atomic<int64_t> most_ahead{std::numeric_limits<int64_t>::min()};

bool IsBehind() {
  const int64_t ahead = WallAheadOfSteady();
  most_ahead = std::max(most_ahead.load(), ahead);
  return std::chrono::nanoseconds(most_ahead - ahead) >= kStep;
}

}  // namespace

std::shared_ptr<ClockSteps> ClockSteps::Watch() {
  static std::mutex mutex;
  static std::weak_ptr<ClockSteps> running;
  const std::lock_guard lock(mutex);
  std::shared_ptr<ClockSteps> steps = running.lock();
  if (steps == nullptr) running = steps = std::make_shared<ClockSteps>();
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

void ClockSteps::Add(const std::shared_ptr<grpc::Channel>& channel) {
  const std::lock_guard lock(mutex_);
  channels_.erase(std::remove_if(channels_.begin(), channels_.end(), [](const auto& one) { return one.expired(); }),
                  channels_.end());
  channels_.push_back(channel);
}

void ClockSteps::Run() {
  (void)IsBehind();
  const auto ended = [this] {
    std::unique_lock lock(mutex_);
    return ending_.wait_for(lock, kInterval, [this] { return ended_; });
  };
  steady_clock::time_point next_attempt;
  while (!ended()) {
    if (IsBehind() && grpc_kick_poller != nullptr) grpc_kick_poller();
    if (steady_clock::now() < next_attempt) continue;
    next_attempt = steady_clock::now() + kAttempt;
    for (const std::shared_ptr<grpc::Channel>& channel : Living()) {
      const bool failed = channel->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_TRANSIENT_FAILURE;
      if (failed) grpc::experimental::ChannelResetConnectionBackoff(channel.get());
    }
  }
}

std::vector<std::shared_ptr<grpc::Channel>> ClockSteps::Living() {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<grpc::Channel>> living;
  for (const std::weak_ptr<grpc::Channel>& one : channels_) {
    if (std::shared_ptr<grpc::Channel> channel = one.lock()) living.push_back(std::move(channel));
  }
  return living;
}

}  // namespace refit

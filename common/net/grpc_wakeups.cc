#include "common/net/grpc_wakeups.h"

#include <grpcpp/completion_queue.h>

#include <algorithm>
#include <chrono>

#include "common/net/steady_deadline.h"

// An internal function of gRPC, without a public header: wakes the thread that checks timers. Later releases do not
// have it.
extern void grpc_kick_poller() __attribute__((weak));

namespace refit {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kInterval{250};
// Between attempts of channels that cannot connect. Resetting their backoff starts one.
constexpr std::chrono::seconds kAttemptInterval{3};
// Of one connection, each time: a ping, and a little more.
constexpr size_t kEventsRead = 2;

// On the queue nothing ever happens: who looks for its next event without waiting for it handles one event of any
// connection.
class ConnectionReader {
 public:
  ~ConnectionReader() {
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) continue;
  }

  void Read(size_t events) {
    void* tag = nullptr;
    bool ok = false;
    for (; events > 0; --events) queue_.AsyncNext(&tag, &ok, SteadyDeadline(std::chrono::nanoseconds(0)));
  }

 private:
  grpc::CompletionQueue queue_;
};

}  // namespace

std::shared_ptr<GrpcWakeups> GrpcWakeups::Watch() {
  static std::mutex mutex;
  static std::weak_ptr<GrpcWakeups> running;
  const std::lock_guard lock(mutex);
  std::shared_ptr<GrpcWakeups> wakeups = running.lock();
  if (wakeups == nullptr) running = wakeups = std::make_shared<GrpcWakeups>();
  return wakeups;
}

GrpcWakeups::GrpcWakeups() : thread_([this] { Run(); }) {}

GrpcWakeups::~GrpcWakeups() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  ending_.notify_all();
  thread_.join();
}

void GrpcWakeups::Add(const std::shared_ptr<grpc::Channel>& channel) {
  const std::lock_guard lock(mutex_);
  channels_.erase(std::remove_if(channels_.begin(), channels_.end(), [](const auto& one) { return one.expired(); }),
                  channels_.end());
  channels_.push_back(channel);
}

void GrpcWakeups::Run() {
  const auto ended = [this] {
    std::unique_lock lock(mutex_);
    return ending_.wait_for(lock, kInterval, [this] { return ended_; });
  };
  ConnectionReader reader;
  steady_clock::time_point next_attempt;
  while (!ended()) {
    if (grpc_kick_poller != nullptr) grpc_kick_poller();
    reader.Read(kEventsRead * Channels());
    if (steady_clock::now() < next_attempt) continue;
    next_attempt = steady_clock::now() + kAttemptInterval;
    for (const std::shared_ptr<grpc::Channel>& channel : Living()) {
      const bool failed = channel->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_TRANSIENT_FAILURE;
      if (failed) grpc::experimental::ChannelResetConnectionBackoff(channel.get());
    }
  }
}

size_t GrpcWakeups::Channels() {
  const std::lock_guard lock(mutex_);
  return channels_.size();
}

std::vector<std::shared_ptr<grpc::Channel>> GrpcWakeups::Living() {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<grpc::Channel>> living;
  for (const std::weak_ptr<grpc::Channel>& one : channels_) {
    if (std::shared_ptr<grpc::Channel> channel = one.lock()) living.push_back(std::move(channel));
  }
  return living;
}

}  // namespace refit

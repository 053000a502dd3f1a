// Wakes gRPC's timers, reads idle connections and reconnects channels, because gRPC may otherwise do that too late.
#pragma once

#include <grpcpp/channel.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace refit {

// Wakes gRPC's timers four times a second. gRPC 1.51 computes deadlines with a steady clock, but its timer threads
// sleep until a wall-clock time (Abseil's waits only have that clock). If the clock is set back by an hour, keepalive,
// deadlines, alarms and reconnects are an hour late. Reacting to clock changes would not be enough: the clock may be
// wrong only for the moment in which a thread goes to sleep.
// Reads connections without a call as often. gRPC reads only while a thread waits for something; otherwise its backup
// poller takes one event every 5 s, so that of several idle connections most leave the service's pings unanswered, and
// are dropped.
// Reconnects channels every 3 s while they cannot connect. If a name was not found (in Kubernetes, a service without a
// pod), gRPC itself may wait up to two minutes before it looks the name up again. Thread-safe.
class GrpcWakeups {
 public:
  // The object of this process, which lives as long as a reference to it. gRPC must be started.
  static std::shared_ptr<GrpcWakeups> Watch();

  GrpcWakeups();
  ~GrpcWakeups();
  GrpcWakeups(const GrpcWakeups&) = delete;
  GrpcWakeups& operator=(const GrpcWakeups&) = delete;

  // Keeps reconnecting this channel as long as the channel lives.
  void Add(const std::shared_ptr<grpc::Channel>& channel);

 private:
  void Run();
  size_t Channels();
  std::vector<std::shared_ptr<grpc::Channel>> Living();

  std::mutex mutex_;
  std::condition_variable ending_;
  bool ended_ = false;
  std::vector<std::weak_ptr<grpc::Channel>> channels_;
  std::thread thread_;
};

}  // namespace refit

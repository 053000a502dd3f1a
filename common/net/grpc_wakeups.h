// Has gRPC act in time, whatever keeps it from that: steps of the wall clock, and names that were not found.
#pragma once

#include <grpcpp/channel.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace refit {

// gRPC 1.51 counts by a steady clock, but its timers' threads sleep until a time of day (Abseil's waits know no other):
// once the clock is set back by an hour, keepalive, deadlines and alarms come an hour late, and lost connections are
// made again after an hour. Has the timers looked at four times a second, whatever the clock says: one that was wrong
// for a moment, while a thread went to sleep by it, would be missed.
// A name that was not found (a service without a pod, in Kubernetes) is looked up again by gRPC after up to two
// minutes. So channels that cannot connect try again every 3 s, whatever gRPC waits for. Thread-safe.
class GrpcWakeups {
 public:
  // The process's one, for as long as somebody holds it. gRPC has been started.
  static std::shared_ptr<GrpcWakeups> Watch();

  GrpcWakeups();
  ~GrpcWakeups();
  GrpcWakeups(const GrpcWakeups&) = delete;
  GrpcWakeups& operator=(const GrpcWakeups&) = delete;

  // Sees to it that this one connects again, for as long as it lives.
  void Add(const std::shared_ptr<grpc::Channel>& channel);

 private:
  void Run();
  std::vector<std::shared_ptr<grpc::Channel>> Living();

  std::mutex mutex_;
  std::condition_variable ending_;
  bool ended_ = false;
  std::vector<std::weak_ptr<grpc::Channel>> channels_;
  std::thread thread_;
};

}  // namespace refit

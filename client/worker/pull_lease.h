// Keeps a pull's call open as long as memory that was mapped in it is used.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "client/worker/lease.h"
#include "client/worker/subscriber_connection.h"
#include "client/worker/subscriber_stream.h"
#include "refit/fork_guard.h"
#include "refit/v1/pull.pb.h"

namespace refit {

// The call stays open until the mapped memory is released.
class PullLease final : public Lease {
 public:
  PullLease(std::shared_ptr<SubscriberConnection> connection, std::shared_ptr<const Route> route,
            const v1::PullRequest& request, std::chrono::milliseconds timeout);
  // If a lease cannot be returned, it ends with the call, and the service never reuses that memory. That includes
  // leases that existed at a fork, because the child may keep the memory mapped.
  ~PullLease() override;

  SubscriberStream& stream() { return stream_; }
  void set_number(uint64_t number) { number_ = number; }

 private:
  const uint64_t forks_ = ForksBegun();
  const std::shared_ptr<SubscriberConnection> connection_;
  const std::shared_ptr<const Route> route_;  // to the service whose memory it is
  SubscriberStream stream_;
  uint64_t number_ = 0;
};

}  // namespace refit

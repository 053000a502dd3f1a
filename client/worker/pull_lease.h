// A pull's call, and the service's memory that was mapped in it.
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

// The call goes on until the memory that was mapped is let go of.
class PullLease final : public Lease {
 public:
  PullLease(std::shared_ptr<SubscriberConnection> connection, const v1::PullRequest& request,
            std::chrono::milliseconds timeout);
  // A lease that cannot be given back ends with the call: the service never uses that memory again. So it is with one
  // that was there at a fork, whose child may have the memory mapped for as long as it likes.
  ~PullLease() override;

  SubscriberStream& stream() { return stream_; }
  void set_number(uint64_t number) { number_ = number; }

 private:
  const uint64_t forks_ = ForksBegun();
  const std::shared_ptr<SubscriberConnection> connection_;
  SubscriberStream stream_;
  uint64_t number_ = 0;
};

}  // namespace refit

// A subscriber's connection. Everything that was begun on it holds a reference.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/calls/active_calls.h"
#include "client/worker/newest_seen.h"
#include "client/worker/routes.h"
#include "common/tensor/buffer_pool.h"
#include "refit/channel_options.h"
#include "refit/fork_guard.h"

namespace refit {

class SpareSubscribers;

// Made with MakeOwnedByProcess. Thread-safe once it is connected.
struct SubscriberConnection {
  const ForkGuard guard;
  std::string address;  // as given: one, or several
  Transport transport = Transport::kAuto;
  std::unique_ptr<Routes> routes;
  NewestSeen newest;
  BufferPool pool{std::numeric_limits<int64_t>::max()};
  // Set for a worker that shows its presence. Other workers are identified by name.
  std::atomic<uint64_t> life{0};
  // For pulls that take several connections.
  std::shared_ptr<SpareSubscribers> spares;
  const std::shared_ptr<ActiveCalls> calls = std::make_shared<ActiveCalls>();

  // FAILED_PRECONDITION in a child of a fork.
  absl::Status CheckNotForked() const;
  // OK if this process can map that service's memory; otherwise the reason.
  absl::Status TryToShare(const Route& route) const;
};

// Errors as Subscriber::Connect.
absl::StatusOr<std::shared_ptr<SubscriberConnection>> ConnectSubscriber(const ChannelOptions& options);

}  // namespace refit

// Authorizes every call, and counts failures.
#pragma once

#include <grpcpp/server_context.h>

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "refit/event_log.h"
#include "refit/limits.h"
#include "server/access/authorizer.h"
#include "server/access/counters.h"
#include "server/access/peer_streams.h"

namespace refit {

// Members are thread-safe or immutable. It outlives every call.
struct Admission {
  Admission(const Limits& call_limits, EventLog event_log, std::shared_ptr<const Authorizer> call_authorizer)
      : limits(call_limits),
        log(std::move(event_log)),
        authorizer(std::move(call_authorizer)),
        peer_streams(call_limits.max_streams_per_peer) {}

  // Every call begins with this; see Authorizer::Check. Refusals are logged and counted.
  absl::Status Authorize(const grpc::CallbackServerContext& context, Role needed);

  const Limits limits;
  const EventLog log;
  const std::shared_ptr<const Authorizer> authorizer;
  PeerStreams peer_streams;
  Counters counters;
};

}  // namespace refit

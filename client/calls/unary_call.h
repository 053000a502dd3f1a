// Makes calls that have one request and one response.
#pragma once

#include <grpcpp/client_context.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "client/calls/active_calls.h"
#include "common/net/status.h"
#include "common/net/steady_deadline.h"

namespace refit {

// Calls `method` of a generated stub. If `calls` is given, the call is in that list. Every error begins with `context`.
// Errors include DEADLINE_EXCEEDED after `timeout`.
template <typename Stub, typename Request, typename Response>
absl::StatusOr<Response> CallUnary(Stub& stub,
                                   grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                   const Request& request, std::chrono::milliseconds timeout,
                                   const std::string& context, const std::shared_ptr<ActiveCalls>& calls = nullptr) {
  grpc::ClientContext call;
  std::optional<ActiveCalls::Entry> entry;
  if (calls != nullptr) entry.emplace(calls, [&call] { call.TryCancel(); });
  call.set_deadline(SteadyDeadline(timeout));
  Response response;
  const grpc::Status status = (stub.*method)(&call, request, &response);
  if (status.ok()) return response;
  const bool is_cancelled = calls != nullptr && calls->cancelled().stopped();
  return Annotate(is_cancelled ? FromGrpc(status) : FromPeer(status), context);
}

}  // namespace refit

// A trainer that waits for its workers to have a version.
#pragma once

#include <grpcpp/support/server_callback.h>

#include "refit/v1/push.pb.h"
#include "server/server_context.h"

namespace refit {

// Answers PushService.AwaitWorkers; see push.proto. `state` and `response` must outlive the call.
grpc::ServerUnaryReactor* StartAwaitWorkers(ServerState& state, const v1::AwaitWorkersRequest& request,
                                            v1::AwaitWorkersResponse& response);

}  // namespace refit

// Tells a worker about versions as they change.
#pragma once

#include <grpcpp/support/server_callback.h>

#include "refit/v1/pull.pb.h"
#include "server/pull/pull_context.h"

namespace refit {

// Answers PullService.WatchVersions in an admitted call; see pull.proto. `pulls` must outlive the call.
grpc::ServerWriteReactor<v1::VersionEvent>* StartWatch(PullContext& pulls, const v1::WatchVersionsRequest& request,
                                                       const grpc::CallbackServerContext& call);

}  // namespace refit

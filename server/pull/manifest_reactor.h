// Sends a manifest in parts.
#pragma once

#include <grpcpp/support/server_callback.h>

#include "refit/v1/pull.pb.h"
#include "server/pull/pull_context.h"

namespace refit {

// Answers PullService.GetManifest in an admitted call; see pull.proto. `pulls` must outlive the call.
grpc::ServerWriteReactor<v1::ManifestPart>* StartManifest(PullContext& pulls, const v1::GetManifestRequest& request,
                                                          const grpc::CallbackServerContext& call);

}  // namespace refit

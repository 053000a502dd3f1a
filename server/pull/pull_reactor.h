// Serves one pull over gRPC.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "server/pull/pull_context.h"

namespace refit {

// Answers PullService.Pull in an admitted call; see pull.proto. `pulls` must outlive the call.
grpc::ServerWriteReactor<grpc::ByteBuffer>* StartPull(PullContext& pulls, const grpc::ByteBuffer& request,
                                                      const grpc::CallbackServerContext& call);

}  // namespace refit

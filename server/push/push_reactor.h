// Serves one push over gRPC.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "server/push/push_context.h"

namespace refit {

// Answers PushService.Push in an admitted call; see push.proto. `pushes` must outlive the call.
grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* StartPush(PushContext& pushes,
                                                                       const grpc::CallbackServerContext& call);

}  // namespace refit

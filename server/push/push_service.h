// The calls of trainers. A push is one stream, one version and one transaction. See proto/refit/v1/push.proto.
#pragma once

#include "refit/v1/push.grpc.pb.h"
#include "server/push/push_context.h"

namespace refit {

class PushService final
    : public v1::PushService::WithRawCallbackMethod_Push<
          v1::PushService::WithCallbackMethod_AbortVersion<v1::PushService::WithCallbackMethod_ReleaseInstalls<
              v1::PushService::WithCallbackMethod_AwaitWorkers<v1::PushService::Service>>>> {
 public:
  // `context` must outlive the service.
  explicit PushService(PushContext& context) : context_(context) {}

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Push(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* AbortVersion(grpc::CallbackServerContext* context, const v1::AbortVersionRequest* request,
                                         v1::AbortVersionResponse* response) override;
  grpc::ServerUnaryReactor* ReleaseInstalls(grpc::CallbackServerContext* context,
                                            const v1::ReleaseInstallsRequest* request,
                                            v1::ReleaseInstallsResponse* response) override;
  grpc::ServerUnaryReactor* AwaitWorkers(grpc::CallbackServerContext* context, const v1::AwaitWorkersRequest* request,
                                         v1::AwaitWorkersResponse* response) override;

 private:
  PushContext& context_;
};

}  // namespace refit

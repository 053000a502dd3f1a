// Trainers push: one stream, one version, one transaction. See proto/refit/v1/push.proto.
#pragma once

#include "refit/v1/push.grpc.pb.h"
#include "server/server_context.h"

namespace refit {

class PushService final
    : public v1::PushService::WithRawCallbackMethod_Push<
          v1::PushService::WithCallbackMethod_AbortVersion<v1::PushService::WithCallbackMethod_ReleaseInstalls<
              v1::PushService::WithCallbackMethod_AwaitWorkers<v1::PushService::Service>>>> {
 public:
  // `state` must outlive the service.
  explicit PushService(ServerState& state) : state_(state) {}

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Push(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* AbortVersion(grpc::CallbackServerContext* context, const v1::AbortVersionRequest* request,
                                         v1::AbortVersionResponse* response) override;
  grpc::ServerUnaryReactor* ReleaseInstalls(grpc::CallbackServerContext* context,
                                            const v1::ReleaseInstallsRequest* request,
                                            v1::ReleaseInstallsResponse* response) override;
  grpc::ServerUnaryReactor* AwaitWorkers(grpc::CallbackServerContext* context, const v1::AwaitWorkersRequest* request,
                                         v1::AwaitWorkersResponse* response) override;

 private:
  ServerState& state_;
};

}  // namespace refit

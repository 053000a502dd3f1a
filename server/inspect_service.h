// People look: see proto/refit/v1/inspect.proto.
#pragma once

#include "refit/v1/inspect.grpc.pb.h"
#include "server/server_context.h"

namespace refit {

class InspectService final : public v1::InspectService::CallbackService {
 public:
  // `state` must outlive the service.
  explicit InspectService(ServerState& state) : state_(state) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context, const v1::GetServerInfoRequest* request,
                                          v1::GetServerInfoResponse* response) override;
  grpc::ServerUnaryReactor* ListVersions(grpc::CallbackServerContext* context, const v1::ListVersionsRequest* request,
                                         v1::ListVersionsResponse* response) override;
  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context, const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerUnaryReactor* DescribeVersion(grpc::CallbackServerContext* context,
                                            const v1::DescribeVersionRequest* request,
                                            v1::DescribeVersionResponse* response) override;
  grpc::ServerUnaryReactor* DescribeTensor(grpc::CallbackServerContext* context,
                                           const v1::DescribeTensorRequest* request,
                                           v1::DescribeTensorResponse* response) override;

 private:
  ServerState& state_;
};

}  // namespace refit

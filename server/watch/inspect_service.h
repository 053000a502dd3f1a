// The calls that inspect the service; see proto/refit/v1/inspect.proto.
#pragma once

#include "refit/v1/inspect.grpc.pb.h"
#include "server/watch/observed.h"

namespace refit {

class InspectService final : public v1::InspectService::CallbackService {
 public:
  // `observed` must outlive the service.
  explicit InspectService(Observed& observed) : observed_(observed) {}

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
  Observed& observed_;
};

}  // namespace refit

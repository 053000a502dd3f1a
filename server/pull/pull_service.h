// The calls of workers: watching versions, reading manifests, pulling. See proto/refit/v1/pull.proto.
#pragma once

#include "refit/v1/pull.grpc.pb.h"
#include "server/pull/pull_context.h"

namespace refit {

class PullService final
    : public v1::PullService::WithCallbackMethod_WatchVersions<v1::PullService::WithCallbackMethod_GetManifest<
          v1::PullService::WithCallbackMethod_EndLease<v1::PullService::WithCallbackMethod_ReportWorker<
              v1::PullService::WithRawCallbackMethod_Pull<v1::PullService::Service>>>>> {
 public:
  // `context` must outlive the service.
  explicit PullService(PullContext& context) : context_(context) {}

  grpc::ServerWriteReactor<v1::VersionEvent>* WatchVersions(grpc::CallbackServerContext* context,
                                                            const v1::WatchVersionsRequest* request) override;
  grpc::ServerWriteReactor<v1::ManifestPart>* GetManifest(grpc::CallbackServerContext* context,
                                                          const v1::GetManifestRequest* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Pull(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* EndLease(grpc::CallbackServerContext* context, const v1::EndLeaseRequest* request,
                                     v1::EndLeaseResponse* response) override;
  grpc::ServerUnaryReactor* ReportWorker(grpc::CallbackServerContext* context, const v1::ReportWorkerRequest* request,
                                         v1::ReportWorkerResponse* response) override;

 private:
  void LogReport(const v1::ReportWorkerRequest& report, const v1::ReportWorkerResponse& answer);

  PullContext& context_;
};

}  // namespace refit

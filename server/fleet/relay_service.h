// The gRPC service for relays below this service.
#pragma once

#include <grpcpp/grpcpp.h>

#include "refit/v1/relay.grpc.pb.h"
#include "server/access/admission.h"
#include "server/fleet/service_ancestry.h"
#include "server/fleet/worker_registry.h"
#include "server/process/end_table.h"

namespace refit {

// Members are thread-safe, and outlive every call.
struct RelayContext {
  Admission& admission;
  WorkerRegistry& workers;
  ServiceAncestry& ancestry;
  EndTable attendances;  // they have no end of their own
};

class RelayService final : public v1::RelayService::CallbackService {
 public:
  // `context` must outlive the service.
  explicit RelayService(RelayContext& context) : context_(context) {}

  grpc::ServerWriteReactor<v1::Ancestry>* Attend(grpc::CallbackServerContext* call,
                                                 const v1::AttendRequest* request) override;
  grpc::ServerUnaryReactor* ReportBelow(grpc::CallbackServerContext* call, const v1::ReportBelowRequest* request,
                                        v1::ReportBelowResponse* response) override;

 private:
  RelayContext& context_;
};

}  // namespace refit

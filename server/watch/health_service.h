// Answers health probes: grpc.health.v1.Health.
#pragma once

#include <atomic>
#include <set>
#include <string>

#include "grpc/health/v1/health.grpc.pb.h"
#include "server/process/end_table.h"
#include "server/process/observers.h"

namespace refit {

// gRPC's own health service would do, but for the end: its watches last until the shutdown's grace is over, and load
// balancers and gRPC's clients keep one open for each connection. Anyone may call it, without a token. Thread-safe. It
// must outlive its calls.
class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  // `services` are the names that are SERVING, as is the empty name, which stands for all of them.
  explicit HealthService(std::set<std::string> services);

  // From now on all are NOT_SERVING. Watches are told first, and then end as UNAVAILABLE.
  void StopServing();

  // NOT_FOUND for an unknown name.
  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* call,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  // Sends the status now, and when it changes. An unknown name is SERVICE_UNKNOWN.
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* call, const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  grpc::health::v1::HealthCheckResponse::ServingStatus StatusOf(const std::string& service) const;

  const std::set<std::string> services_;
  std::atomic<bool> serving_{true};
  Observers watches_;
  EndTable ends_;
};

}  // namespace refit

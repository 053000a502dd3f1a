// Answers health probes in plain text at an address of its own, for a service with TLS: kubelet's gRPC probe does not
// support TLS.
#pragma once

#include <grpcpp/server.h>

#include <memory>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "server/watch/health_service.h"

namespace refit {

// Serves grpc.health.v1.Health, and nothing else, until it is destroyed. Thread-safe.
class HealthEndpoint {
 public:
  // `address` is "host:port" (port 0: any free port) or "unix:/path". `services` are the names that are SERVING.
  // INVALID_ARGUMENT for an invalid address. UNAVAILABLE, naming the address, if it cannot listen there. gRPC must be
  // started.
  static absl::StatusOr<std::unique_ptr<HealthEndpoint>> Start(const std::string& address,
                                                               std::set<std::string> services);
  ~HealthEndpoint();

  // As HealthService's.
  void StopServing() { service_->StopServing(); }

  // With the port that was chosen; 0 for a Unix socket.
  const std::string& address() const { return address_; }
  int port() const { return port_; }

 private:
  HealthEndpoint(std::unique_ptr<HealthService> service, std::unique_ptr<grpc::Server> server, std::string address,
                 int port);

  const std::unique_ptr<HealthService> service_;
  const std::unique_ptr<grpc::Server> server_;
  const std::string address_;
  const int port_;
};

}  // namespace refit

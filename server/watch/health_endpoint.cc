#include "server/watch/health_endpoint.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/net/address.h"
#include "common/net/channel.h"
#include "common/net/steady_deadline.h"
#include "refit/tensor_spec.h"

namespace refit {
namespace {

// A probe's request contains only the name of a service.
constexpr int kMaxProbeBytes = 64 << 10;

}  // namespace

absl::StatusOr<std::unique_ptr<HealthEndpoint>> HealthEndpoint::Start(const std::string& address,
                                                                      const std::vector<std::string>& services) {
  if (absl::Status status = CheckAddress(address); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("--health: ", status.message()));
  }
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  ConfigureServer(builder, kMaxProbeBytes);
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  const bool is_unix = absl::StartsWith(address, "unix:");
  if (server == nullptr || (port == 0 && !is_unix)) {
    return absl::UnavailableError(absl::StrCat("cannot answer health probes on '", Printable(address),
                                               "'; is the address right and the port free?"));
  }
  for (const std::string& service : services) server->GetHealthCheckService()->SetServingStatus(service, true);
  std::string listening = is_unix ? address : absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
  return absl::WrapUnique(new HealthEndpoint(std::move(server), std::move(listening), port));
}

HealthEndpoint::HealthEndpoint(std::unique_ptr<grpc::Server> server, std::string address, int port)
    : server_(std::move(server)), address_(std::move(address)), port_(port) {}

HealthEndpoint::~HealthEndpoint() {
  server_->Shutdown(SteadyDeadline(std::chrono::milliseconds::zero()));
  server_->Wait();
}

void HealthEndpoint::StopServing() { server_->GetHealthCheckService()->Shutdown(); }

}  // namespace refit

#include "server/watch/health_endpoint.h"

#include <grpcpp/grpcpp.h>

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
                                                                      std::set<std::string> services) {
  if (absl::Status status = CheckAddress(address); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("--health: ", status.message()));
  }
  grpc::ServerBuilder builder;
  ConfigureServer(builder, kMaxProbeBytes);
  auto service = std::make_unique<HealthService>(std::move(services));
  builder.RegisterService(service.get());
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  const bool is_unix = absl::StartsWith(address, "unix:");
  if (server == nullptr || (port == 0 && !is_unix)) {
    return absl::UnavailableError(absl::StrCat("cannot answer health probes on '", Printable(address),
                                               "'; is the address right and the port free?"));
  }
  std::string listening = is_unix ? address : absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
  return absl::WrapUnique(new HealthEndpoint(std::move(service), std::move(server), std::move(listening), port));
}

HealthEndpoint::HealthEndpoint(std::unique_ptr<HealthService> service, std::unique_ptr<grpc::Server> server,
                               std::string address, int port)
    : service_(std::move(service)), server_(std::move(server)), address_(std::move(address)), port_(port) {}

HealthEndpoint::~HealthEndpoint() {
  server_->Shutdown(SteadyDeadline(std::chrono::milliseconds::zero()));
  server_->Wait();
}

}  // namespace refit

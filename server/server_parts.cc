#include "server/server_parts.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/limits/host_limits.h"
#include "common/net/channel.h"
#include "common/net/listening_sockets.h"
#include "common/net/status.h"
#include "grpc/health/v1/health.pb.h"
#include "server/server_checks.h"
#include "server/watch/metrics.h"

namespace refit {
namespace {

// The names of the services, for health checks.
std::vector<std::string> ServiceNames() {
  return {v1::PushService::service_full_name(), v1::PullService::service_full_name(),
          v1::InspectService::service_full_name()};
}

int PortOf(absl::string_view address) {
  int port = 0;
  return absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port) ? port : 0;
}

// The path of a Unix socket's address. Empty for other addresses.
absl::string_view UnixPath(absl::string_view address) {
  return absl::ConsumePrefix(&address, "unix:") ? address : absl::string_view();
}

int ThreadCount(int asked) { return asked > 0 ? asked : std::max(1, UsableCpus() / 2); }

StoreOptions Reporting(StoreOptions options, const EventLog& log) {
  if (options.on_unshared != nullptr) return options;
  options.on_unshared = [log](const absl::Status& why) {
    log.Warning("memory for tensors is no longer shared; workers on this host get it over the connection",
                {{"reason", std::string(why.message())}});
  };
  return options;
}

}  // namespace

ServerParts::ServerParts(const ServerOptions& options, std::shared_ptr<const Authorizer> authorizer,
                         ServerCredentials made)
    : credentials(std::move(made)),
      admission(options.limits, options.log, std::move(authorizer)),
      store(Reporting(options.store, options.log)),
      workers(options.limits.max_workers),
      pushes{admission, store, workers, convert,
             BufferPool(2 * options.store.chunk_bytes * static_cast<uint64_t>(ThreadCount(options.convert_threads)))},
      pulls{admission,
            store,
            workers,
            options.store.shared_memory ? MakeSharedSample() : nullptr,
            PartTable(options.limits.packed_bytes),
            DeltaTable(options.deltas
                           ? std::max<uint64_t>(options.limits.delta_bytes + options.limits.delta_history_bytes, 1)
                           : 0)},
      convert(ThreadCount(options.convert_threads)) {}

absl::Status ServerParts::OpenSpool(const ServerOptions& options) {
  if (options.spool.empty()) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<Spool>> opened =
      Spool::Open(options.spool, options.trust_spool ? SpoolOwner::kAnyone : SpoolOwner::kThisUser,
                  options.limits.max_message_bytes - kChunkOverheadBytes, store, options.log);
  if (!opened.ok()) return Annotate(opened.status(), "--spool");
  spool = *std::move(opened);
  return absl::OkStatus();
}

absl::StatusOr<int> ServerParts::Listen(const ServerOptions& options) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  (void)grpc::health::v1::HealthCheckRequest::descriptor();  // linked, so that reflection can describe the service
  grpc::ServerBuilder builder;
  ConfigureServer(builder, options.limits.max_message_bytes, options.limits.peer_timeout);
  int port = 0;
  builder.AddListeningPort(options.listen, credentials.server, &port);
  builder.RegisterService(&push);
  builder.RegisterService(&pull);
  builder.RegisterService(&inspect);
  server = builder.BuildAndStart();
  if (server == nullptr || (port == 0 && !absl::StartsWith(options.listen, "unix:"))) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on '", options.listen, "'; is the address right and the port free?"));
  }
  for (const std::string& service : ServiceNames()) {
    server->GetHealthCheckService()->SetServingStatus(service, true);
  }
  CloseInChildren(port, UnixPath(options.listen));
  return port;
}

absl::Status ServerParts::StartMetrics(const ServerOptions& options) {
  if (options.metrics.empty()) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<MetricsEndpoint>> started =
      MetricsEndpoint::Start(options.metrics, std::make_shared<Metrics>(observed));
  if (!started.ok()) return started.status();
  metrics = *std::move(started);
  CloseInChildren(PortOf(metrics->address()), "");
  return absl::OkStatus();
}

absl::Status ServerParts::StartHealth(const ServerOptions& options) {
  if (options.health.empty()) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<HealthEndpoint>> started = HealthEndpoint::Start(options.health, ServiceNames());
  if (!started.ok()) return started.status();
  health = *std::move(started);
  CloseInChildren(health->port(), UnixPath(options.health));
  return absl::OkStatus();
}

void ServerParts::CloseInChildren(int port, absl::string_view unix_path) {
  const absl::MutexLock lock(&mutex);
  for (const int fd : ListeningSockets(port, unix_path)) listening.push_back(std::make_unique<ClosedInChildren>(fd));
}

void ServerParts::KeepInChildren() {
  const absl::MutexLock lock(&mutex);
  listening.clear();
}

}  // namespace refit

#include "server/server_parts.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/limits/host_limits.h"
#include "common/net/address.h"
#include "common/net/channel.h"
#include "common/net/descriptor_client.h"
#include "common/net/listening_sockets.h"
#include "common/net/status.h"
#include "common/process/process_name.h"
#include "server/listen_addresses.h"
#include "server/server_checks.h"
#include "server/watch/metrics.h"

namespace refit {
namespace {

// For health checks.
std::set<std::string> ServiceNames() {
  return {v1::PushService::service_full_name(), v1::PullService::service_full_name(),
          v1::RelayService::service_full_name(), v1::InspectService::service_full_name()};
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
                         std::shared_ptr<grpc::ServerCredentials> made)
    : credentials(std::move(made)),
      admission(options.limits, options.log, std::move(authorizer)),
      store(Reporting(options.store, options.log)),
      workers(options.limits.max_workers),
      ancestry(options.name.empty() ? HostAndProcess() : options.name, !options.is_relay()),
      descriptors(PassesDescriptors(options)),
      pushes{admission,
             store,
             workers,
             convert,
             descriptors,
             BufferPool(2 * options.store.chunk_bytes * static_cast<uint64_t>(ThreadCount(options.convert_threads))),
             options.upstream.address},
      pulls{admission,
            store,
            workers,
            descriptors,
            options.store.shared_memory ? MakeSharedSample(descriptors) : std::nullopt,
            PartTable(options.limits.packed_bytes),
            DeltaTable(options.deltas
                           ? std::max<uint64_t>(options.limits.delta_bytes + options.limits.delta_history_bytes, 1)
                           : 0)},
      convert(ThreadCount(options.convert_threads)),
      observed{admission, store, workers, pushes, pulls, convert, spool, upstream, options.zone},
      probes(ServiceNames()) {}

absl::Status ServerParts::OpenSpool(const ServerOptions& options) {
  if (options.spool.empty()) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<Spool>> opened =
      Spool::Open(options.spool, options.trust_spool ? SpoolOwner::kAnyone : SpoolOwner::kThisUser,
                  options.limits.max_message_bytes - kChunkOverheadBytes, store, options.log,
                  options.is_relay() ? HeldInstalls::kStay : HeldInstalls::kEnd);
  if (!opened.ok()) return Annotate(opened.status(), "--spool");
  spool = *std::move(opened);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ServerParts::Listen(const ServerOptions& options) {
  if (absl::Status status = unix_sockets.Open(options, descriptors); !status.ok()) return status;
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  ConfigureServer(builder, options.limits.max_message_bytes, options.limits.peer_timeout);
  std::vector<std::string> addresses = ListenAddresses(options.listen);
  std::vector<int> ports(addresses.size());
  for (size_t i = 0; i < addresses.size(); ++i) {
    builder.AddListeningPort(addresses[i], credentials, &ports[i]);
  }
  builder.RegisterService(&push);
  builder.RegisterService(&pull);
  builder.RegisterService(&relay);
  builder.RegisterService(&inspect);
  builder.RegisterService(&probes);
  server = builder.BuildAndStart();
  // gRPC stops at the first address on which it cannot listen. A Unix socket has a port too, which is 1.
  const size_t failed = std::find(ports.begin(), ports.end(), 0) - ports.begin();
  if (server == nullptr || failed < ports.size()) {
    return absl::UnavailableError(absl::StrCat("cannot listen on '",
                                               failed < ports.size() ? addresses[failed] : options.listen,
                                               "'; is the address right and the port free?"));
  }
  if (absl::Status status = UnixSockets::SetModes(options); !status.ok()) return status;
  for (size_t i = 0; i < addresses.size(); ++i) {
    addresses[i] = WithPort(addresses[i], ports[i]);
    CloseInChildren(addresses[i]);
  }
  for (const std::string& path : UnixPaths(options.listen))
    CloseInChildren(absl::StrCat("unix:", DescriptorPath(path)));
  return addresses;
}

absl::Status ServerParts::StartMetrics(const ServerOptions& options) {
  if (options.metrics.empty()) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<MetricsEndpoint>> started =
      MetricsEndpoint::Start(options.metrics, std::make_shared<Metrics>(observed));
  if (!started.ok()) return started.status();
  metrics = *std::move(started);
  CloseInChildren(metrics->address());
  return absl::OkStatus();
}

absl::Status ServerParts::StartHealth(const ServerOptions& options) {
  if (options.health.empty()) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<HealthEndpoint>> started = HealthEndpoint::Start(options.health, ServiceNames());
  if (!started.ok()) return started.status();
  health = *std::move(started);
  CloseInChildren(health->address());
  return absl::OkStatus();
}

void ServerParts::CloseInChildren(absl::string_view address) {
  const absl::MutexLock lock(&mutex);
  for (const int fd : ListeningSockets(PortOf(address), UnixPath(address))) {
    listening.push_back(std::make_unique<ClosedInChildren>(fd));
  }
}

void ServerParts::KeepInChildren() {
  const absl::MutexLock lock(&mutex);
  listening.clear();
}

}  // namespace refit

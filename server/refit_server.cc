#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "common/limits/host_limits.h"
#include "common/net/address.h"
#include "common/net/channel.h"
#include "common/net/credentials.h"
#include "common/net/grpc_wakeups.h"
#include "common/net/listening_sockets.h"
#include "common/net/status.h"
#include "common/net/steady_deadline.h"
#include "common/process/closed_in_children.h"
#include "grpc/health/v1/health.pb.h"
#include "refit/server.h"
#include "refit/version.h"
#include "server/process/limit_warnings.h"
#include "server/pull/pull_service.h"
#include "server/push/push_service.h"
#include "server/watch/health_endpoint.h"
#include "server/watch/inspect_service.h"
#include "server/watch/metrics.h"
#include "server/watch/metrics_endpoint.h"

namespace refit {
namespace {

constexpr uint64_t kMinChunkBytes = 4096;
constexpr uint64_t kChunkOverheadBytes = 1024;

// Of what is served, and whose health is told.
std::vector<std::string> ServiceNames() {
  return {v1::PushService::service_full_name(), v1::PullService::service_full_name(),
          v1::InspectService::service_full_name()};
}

absl::Status Validate(const ServerOptions& options) {
  if (absl::Status status = CheckAddress(options.listen); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("--listen: ", status.message()));
  }
  const uint64_t max_message = options.limits.max_message_bytes;
  if (options.limits.max_message_bytes < (64 << 10) || options.limits.max_message_bytes > (64 << 20)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-message-bytes must be 64 KiB to 64 MiB, got ", max_message, " bytes"));
  }
  const uint64_t chunk = options.store.chunk_bytes;
  if (chunk < kMinChunkBytes || chunk > max_message - kChunkOverheadBytes || chunk % 64 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("--chunk-bytes must be a multiple of 64 from ", kMinChunkBytes,
                                                   " to ", max_message - kChunkOverheadBytes, " (message size less ",
                                                   kChunkOverheadBytes, ") bytes, got ", chunk));
  }
  if (!options.spool.empty() && options.store.retain_versions == 0) {
    return absl::InvalidArgumentError(
        "--spool keeps committed versions, but with --retain 0 there are none: tensors are given up once workers have "
        "them; leave out one of the two");
  }
  if (options.trust_spool && options.spool.empty()) {
    return absl::InvalidArgumentError("--trust-spool says how --spool is taken, and there is none");
  }
  return absl::OkStatus();
}

// Plain text only where nobody else can listen in, unless told so in so many words; roles only for names that are
// proven.
absl::Status ValidateSecurity(const ServerOptions& options) {
  if (!options.security.tls() && !IsLocal(options.listen) && !options.allow_plaintext) {
    return absl::InvalidArgumentError(absl::StrCat(
        "refusing to listen in plain text on '", options.listen,
        "', which is not loopback: anyone who reaches it could read and replace the weights; use TLS (--tls-cert, "
        "--tls-key), or 127.0.0.1, [::1], localhost or unix:, or allow it with --allow-plaintext"));
  }
  if (!options.authorization.roles.empty() && options.security.client_ca.empty()) {
    return absl::InvalidArgumentError(
        "roles belong to names in clients' certificates, so they need the authority that signs those "
        "(--tls-client-ca)");
  }
  if (options.metrics.empty()) return absl::OkStatus();
  return MetricsEndpoint::CheckAddress(options.metrics, options.allow_plaintext);
}

const char* DescribeSecurity(const ServerOptions& options) {
  if (!options.security.tls()) return options.authorization.any() ? "plain text, roles" : "plain text";
  if (options.security.client_ca.empty()) return options.authorization.any() ? "TLS, roles" : "TLS";
  return options.authorization.any() ? "mutual TLS, roles" : "mutual TLS";
}

// For files that are read again while the service runs.
ReloadReport ReportTo(const EventLog& log, const char* what) {
  return [log, what](const absl::Status& status) {
    if (status.ok()) {
      log.Info("files read again", {{"files", what}});
    } else {
      log.Warning("changed files cannot be used; the old contents stay",
                  {{"files", what}, {"error", status.ToString()}});
    }
  };
}

int PortOf(absl::string_view address) {
  int port = 0;
  return absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port) ? port : 0;
}

std::string WithPort(const std::string& listen, int port) {
  if (absl::StartsWith(listen, "unix:")) return listen;
  return absl::StrCat(listen.substr(0, listen.rfind(':')), ":", port);
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

// Members are destroyed in reverse order: gRPC first, then the services, then the threads that convert, then what all
// of them share.
struct RefitServer::Impl {
  Impl(const ServerOptions& options, std::shared_ptr<const Authorizer> authorizer, ServerCredentials made)
      : credentials(std::move(made)),
        admission(options.limits, options.log, std::move(authorizer)),
        store(Reporting(options.store, options.log)),
        workers(options.limits.max_workers),
        pushes{admission, store, workers, convert,
               BufferPool(2 * options.store.chunk_bytes * static_cast<uint64_t>(ThreadCount(options.convert_threads)))},
        pulls{admission, store, workers, options.store.shared_memory ? MakeSharedSample() : nullptr,
              PartTable(options.limits.packed_bytes)},
        convert(ThreadCount(options.convert_threads)) {}

  const ServerCredentials credentials;
  const std::shared_ptr<GrpcWakeups> wakeups = GrpcWakeups::Watch();
  Admission admission;
  VersionStore store;
  std::unique_ptr<Spool> spool;  // set before the first call; null: nothing is kept on disk
  WorkerRegistry workers;
  PushContext pushes;
  PullContext pulls;
  WorkQueue convert;
  Observed observed{admission, store, workers, pushes, pulls, convert, spool};
  PushService push{pushes};
  PullService pull{pulls};
  InspectService inspect{observed};
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<MetricsEndpoint> metrics;
  std::unique_ptr<HealthEndpoint> health;

  // Until it is shut down a child of a fork gives up what this service listens on: the port would stay taken after it.
  void CloseInChildren(int port, absl::string_view unix_path) {
    const absl::MutexLock lock(&mutex);
    for (const int fd : ListeningSockets(port, unix_path)) listening.push_back(std::make_unique<ClosedInChildren>(fd));
  }
  void KeepInChildren() {
    const absl::MutexLock lock(&mutex);
    listening.clear();
  }

  absl::Mutex mutex;
  std::vector<std::unique_ptr<ClosedInChildren>> listening ABSL_GUARDED_BY(mutex);
};

absl::StatusOr<std::unique_ptr<RefitServer>> RefitServer::Start(const ServerOptions& options) {
  if (absl::Status status = StartGrpc(); !status.ok()) return Annotate(status, "service on " + options.listen);
  if (absl::Status status = Validate(options); !status.ok()) return status;
  if (absl::Status status = ValidateSecurity(options); !status.ok()) return status;
  absl::StatusOr<std::shared_ptr<const Authorizer>> authorizer =
      Authorizer::Load(options.authorization, ReportTo(options.log, "tokens and roles"));
  if (!authorizer.ok()) return authorizer.status();
  absl::StatusOr<ServerCredentials> credentials =
      MakeServerCredentials(options.security, ReportTo(options.log, "certificates"));
  if (!credentials.ok()) return credentials.status();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  (void)grpc::health::v1::HealthCheckRequest::descriptor();  // linked, so that reflection can describe the service

  auto impl = MakeOwnedByProcess<Impl>(options, *std::move(authorizer), *std::move(credentials));
  if (!options.spool.empty()) {
    absl::StatusOr<std::unique_ptr<Spool>> spool =
        Spool::Open(options.spool, options.trust_spool ? SpoolOwner::kAnyone : SpoolOwner::kThisUser,
                    options.limits.max_message_bytes - kChunkOverheadBytes, impl->store, options.log);
    if (!spool.ok()) return Annotate(spool.status(), "--spool");
    impl->spool = *std::move(spool);
  }
  grpc::ServerBuilder builder;
  ConfigureServer(builder, options.limits.max_message_bytes, options.limits.peer_timeout);
  int port = 0;
  builder.AddListeningPort(options.listen, impl->credentials.server, &port);
  builder.RegisterService(&impl->push);
  builder.RegisterService(&impl->pull);
  builder.RegisterService(&impl->inspect);
  impl->server = builder.BuildAndStart();
  const bool is_unix = absl::StartsWith(options.listen, "unix:");
  if (impl->server == nullptr || (port == 0 && !is_unix)) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on '", options.listen, "'; is the address right and the port free?"));
  }
  for (const std::string& service : ServiceNames()) {
    impl->server->GetHealthCheckService()->SetServingStatus(service, true);
  }
  impl->CloseInChildren(port, is_unix ? absl::StripPrefix(options.listen, "unix:") : "");
  if (!options.metrics.empty()) {
    absl::StatusOr<std::unique_ptr<MetricsEndpoint>> metrics =
        MetricsEndpoint::Start(options.metrics, std::make_shared<Metrics>(impl->observed));
    if (!metrics.ok()) return metrics.status();
    impl->metrics = *std::move(metrics);
    impl->CloseInChildren(PortOf(impl->metrics->address()), "");
  }
  if (!options.health.empty()) {
    absl::StatusOr<std::unique_ptr<HealthEndpoint>> health = HealthEndpoint::Start(options.health, ServiceNames());
    if (!health.ok()) return health.status();
    impl->health = *std::move(health);
    impl->CloseInChildren(impl->health->port(),
                          absl::StartsWith(options.health, "unix:") ? absl::StripPrefix(options.health, "unix:") : "");
  }
  std::unique_ptr<RefitServer> server = absl::WrapUnique(new RefitServer(std::move(impl)));
  server->port_ = port;
  server->address_ = WithPort(options.listen, port);
  const StoreOptions& store = server->impl_->store.options();
  for (const std::string& warning : LimitWarnings(store.memory_budget_bytes)) options.log.Warning(warning);
  options.log.Info("listening", {{"address", server->address_},
                                 {"security", DescribeSecurity(options)},
                                 {"version", SoftwareVersion()},
                                 {"memory_bytes", absl::StrCat(store.memory_budget_bytes)},
                                 {"retain", absl::StrCat(options.store.retain_versions)},
                                 {"convert_threads", absl::StrCat(server->impl_->convert.threads())},
                                 {"metrics", server->metrics_address().empty() ? "off" : server->metrics_address()},
                                 {"health", server->health_address().empty() ? "off" : server->health_address()}});
  return server;
}

RefitServer::RefitServer(OwnedByProcess<Impl> impl) : impl_(std::move(impl)) {}

RefitServer::~RefitServer() { Shutdown(std::chrono::milliseconds::zero()); }

std::string RefitServer::metrics_address() const { return impl_->metrics == nullptr ? "" : impl_->metrics->address(); }

std::string RefitServer::health_address() const { return impl_->health == nullptr ? "" : impl_->health->address(); }

absl::StatusOr<std::unique_ptr<VersionBuilder>> RefitServer::OpenVersion(const BuildOptions& options,
                                                                         std::vector<TensorSpec> native) {
  const absl::Status usable = impl_.get_deleter().guard.Check(absl::StrCat("service on ", address_));
  if (!usable.ok()) return usable;
  if (options.world != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a version of ", options.world, " ranks is pushed over the wire; in process, world is 1"));
  }
  BuildOptions limited = options;
  limited.max_tensors = std::min(limited.max_tensors, impl_->admission.limits.max_tensors_per_version);
  limited.max_name_bytes = std::min<size_t>(limited.max_name_bytes, impl_->admission.limits.max_name_bytes);
  absl::StatusOr<std::unique_ptr<VersionBuilder>> builder =
      VersionBuilder::Open(impl_->store, limited, std::move(native));
  if (builder.ok()) (*builder)->ConvertWith(impl_->convert);
  return builder;
}

void RefitServer::Shutdown(std::chrono::milliseconds grace) {
  if (impl_.get_deleter().guard.forked()) return;
  impl_->KeepInChildren();
  if (grpc::HealthCheckServiceInterface* health = impl_->server->GetHealthCheckService()) health->Shutdown();
  if (impl_->health != nullptr) impl_->health->StopServing();
  impl_->pulls.leases.EndAll();
  impl_->pulls.watches.EndAll();
  const auto deadline = std::chrono::steady_clock::now() + grace;
  impl_->server->Shutdown(SteadyDeadline(grace));
  impl_->server->Wait();
  if (impl_->spool != nullptr) impl_->spool->Stop(deadline);
}

void RefitServer::CancelCalls() {
  if (!impl_.get_deleter().guard.forked()) grpc_server_cancel_all_calls(impl_->server->c_server());
}

}  // namespace refit

#include <grpc/grpc.h>

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/adapters/adapter_registry.h"
#include "common/net/channel.h"
#include "common/net/status.h"
#include "common/net/steady_deadline.h"
#include "refit/server.h"
#include "refit/version.h"
#include "server/listen_addresses.h"
#include "server/process/limit_warnings.h"
#include "server/push/local_push.h"
#include "server/push/push_context.h"
#include "server/server_checks.h"
#include "server/server_parts.h"

namespace refit {
namespace {

// Reports on files that are read again while the service runs.
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

ServerOptions WithReloadLog(ServerOptions options) {
  if (!options.upstream.on_reload) {
    options.upstream.on_reload = ReportTo(options.log, "certificates and token for the service above");
  }
  return options;
}

absl::Status AddAdapterFiles(const std::string& files) {
  for (const absl::string_view file : absl::StrSplit(files, ',', absl::SkipWhitespace())) {
    const std::string path(absl::StripAsciiWhitespace(file));
    if (absl::Status status = AddAdapterFile(path); !status.ok()) return Annotate(status, "--adapter-file");
  }
  return absl::OkStatus();
}

}  // namespace

struct RefitServer::Impl : ServerParts {
  using ServerParts::ServerParts;
};

absl::StatusOr<std::unique_ptr<RefitServer>> RefitServer::Start(const ServerOptions& options) {
  return Start(options, nullptr);
}

absl::StatusOr<std::unique_ptr<RefitServer>> RefitServer::Start(const ServerOptions& options,
                                                                const MakeUpstream& make) {
  if (options.is_relay() && make == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("a relay (of ", options.upstream.address, ") is started with StartServer of refit/relay.h"));
  }
  if (absl::Status status = StartGrpc(); !status.ok()) return Annotate(status, "service on " + options.listen);
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  if (absl::Status status = AddAdapterFiles(options.adapter_files); !status.ok()) return status;
  absl::StatusOr<std::shared_ptr<const Authorizer>> authorizer =
      Authorizer::Load(options.authorization, ReportTo(options.log, "tokens and roles"));
  if (!authorizer.ok()) return authorizer.status();
  absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> credentials =
      MakeServerCredentials(options.security, ReportTo(options.log, "certificates"));
  if (!credentials.ok()) return credentials.status();

  auto impl = MakeOwnedByProcess<Impl>(options, *std::move(authorizer), *std::move(credentials));
  if (absl::Status status = impl->OpenSpool(options); !status.ok()) return status;
  if (options.is_relay()) impl->upstream = make(*impl, WithReloadLog(options));
  absl::StatusOr<std::vector<std::string>> addresses = impl->Listen(options);
  if (!addresses.ok()) return addresses.status();
  if (absl::Status status = impl->StartMetrics(options); !status.ok()) return status;
  if (absl::Status status = impl->StartHealth(options); !status.ok()) return status;
  std::unique_ptr<RefitServer> server = absl::WrapUnique(new RefitServer(std::move(impl), *std::move(addresses)));
  server->LogStart(options);
  if (options.is_relay()) server->impl_->upstream->Start();
  return server;
}

RefitServer::RefitServer(OwnedByProcess<Impl> impl, std::vector<std::string> addresses)
    : impl_(std::move(impl)), addresses_(std::move(addresses)) {}

RefitServer::~RefitServer() { Shutdown(std::chrono::milliseconds::zero()); }

void RefitServer::LogStart(const ServerOptions& options) const {
  const StoreOptions& store = impl_->store.options();
  for (const std::string& warning : LimitWarnings(store.memory_budget_bytes)) options.log.Warning(warning);
  options.log.Info("listening", {{"address", absl::StrJoin(addresses_, ",")},
                                 {"security", DescribeSecurity(options)},
                                 {"version", SoftwareVersion()},
                                 {"memory_bytes", absl::StrCat(store.memory_budget_bytes)},
                                 {"upstream", options.is_relay() ? options.upstream.address : "none"},
                                 {"retain", absl::StrCat(options.store.retain_versions)},
                                 {"convert_threads", absl::StrCat(impl_->convert.threads())},
                                 {"metrics", metrics_address().empty() ? "off" : metrics_address()},
                                 {"health", health_address().empty() ? "off" : health_address()}});
}

int RefitServer::port() const {
  const auto port =
      std::find_if(addresses_.begin(), addresses_.end(), [](const auto& one) { return PortOf(one) != 0; });
  return port == addresses_.end() ? 0 : PortOf(*port);
}

std::string RefitServer::metrics_address() const { return impl_->metrics == nullptr ? "" : impl_->metrics->address(); }

std::string RefitServer::health_address() const { return impl_->health == nullptr ? "" : impl_->health->address(); }

absl::StatusOr<std::unique_ptr<VersionPush>> RefitServer::OpenVersion(const PublishOptions& options,
                                                                      std::vector<TensorSpec> native) {
  const absl::Status usable = impl_.get_deleter().guard.Check(absl::StrCat("service on ", address()));
  if (!usable.ok()) return usable;
  if (absl::Status status = CheckIsRoot(impl_->pushes); !status.ok()) return status;
  return OpenLocalPush(impl_->store, impl_->convert, options, std::move(native), impl_->admission.limits);
}

void RefitServer::Shutdown(std::chrono::milliseconds grace) {
  if (impl_.get_deleter().guard.forked()) return;
  impl_->KeepInChildren();
  if (impl_->upstream != nullptr) impl_->upstream->Stop();
  impl_->probes.StopServing();
  if (impl_->health != nullptr) impl_->health->StopServing();
  impl_->pulls.leases.EndAll();
  impl_->pulls.watches.EndAll();
  impl_->relays.attendances.EndAll();
  impl_->pushes.waits.EndAll();  // workers can report no more
  const auto deadline = std::chrono::steady_clock::now() + grace;
  impl_->server->Shutdown(SteadyDeadline(grace));
  impl_->server->Wait();
  impl_->unix_sockets.Close();
  if (impl_->spool != nullptr) impl_->spool->Stop(deadline);
}

void RefitServer::CancelCalls() {
  if (!impl_.get_deleter().guard.forked()) grpc_server_cancel_all_calls(impl_->server->c_server());
}

}  // namespace refit

// The whole service in one object: for the refit-server program, and for a trainer that embeds it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/net/credentials.h"
#include "common/process/fork_guard.h"
#include "server/access/authorizer.h"
#include "server/access/limits.h"
#include "server/process/event_log.h"
#include "server/push/version_builder.h"
#include "server/store/version_store.h"

namespace refit {

struct ServerOptions {
  // "host:port" (port 0: any free one), or "unix:/path". A host that is not loopback is refused without TLS unless
  // allow_plaintext.
  std::string listen = "127.0.0.1:50051";
  bool allow_plaintext = false;
  ServerSecurity security;
  // Without: everyone may do everything.
  AuthorizationFiles authorization;
  StoreOptions store;
  Limits limits;
  // Committed versions are kept in this folder too, and served again after a restart; see server/spool/spool.h. Empty:
  // they are not. Not together with streamed versions (retain_versions 0).
  std::string spool;
  // The spool's folder may belong to another user, and others may write to it.
  bool trust_spool = false;
  // "host:port" to serve metrics on (see server/watch/metrics_endpoint.h), loopback unless allow_plaintext. Empty:
  // nowhere.
  std::string metrics;
  // "host:port" or "unix:/path" where health probes are answered in plain text, whatever `security` asks of others; see
  // server/watch/health_endpoint.h. Empty: only on `listen`.
  std::string health;
  // Threads that convert: one for each stream that is pushed at the time, all together for a large tensor that is
  // published in process (the caller's thread does its part too). 0: one for each two CPUs that the process may use
  // (see common/limits/host_limits.h), at least one.
  int convert_threads = 0;
  EventLog log;
};

// Running from Start until Shutdown or the destructor. Thread-safe. In a child of a fork FAILED_PRECONDITION, and
// nothing happens to the parent's service.
class RefitServer {
 public:
  // INVALID_ARGUMENT for bad options; UNAVAILABLE, naming the address, if it cannot listen there; as StartGrpc.
  static absl::StatusOr<std::unique_ptr<RefitServer>> Start(const ServerOptions& options);
  ~RefitServer();

  // The address that it listens on, with the port that was chosen.
  const std::string& address() const { return address_; }
  int port() const { return port_; }
  // Where metrics are served; empty: nowhere.
  std::string metrics_address() const;
  // Where health probes are answered besides; empty: nowhere.
  std::string health_address() const;

  // Opens a version from within this process: no network hop, tensors converted straight into the version's memory. The
  // builder must be gone before the server is. Errors as VersionBuilder::Open.
  absl::StatusOr<std::unique_ptr<VersionBuilder>> OpenVersion(const BuildOptions& options,
                                                              std::vector<TensorSpec> native);

  // Refuses new calls, gives those under way until `grace` is over, then cancels them. Idempotent.
  void Shutdown(std::chrono::milliseconds grace);

  // Cancels all calls under way, so that a Shutdown that waits for them ends.
  void CancelCalls();

 private:
  struct Impl;
  explicit RefitServer(OwnedByProcess<Impl> impl);
  OwnedByProcess<Impl> impl_;
  std::string address_;
  int port_ = 0;
};

}  // namespace refit

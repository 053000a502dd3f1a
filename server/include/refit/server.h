// The service as one object, for the refit-server program and for trainers that embed it.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "refit/fork_guard.h"
#include "refit/publish_options.h"
#include "refit/server_options.h"
#include "refit/tensor_spec.h"
#include "refit/version_push.h"

namespace refit {

class Upstream;
struct ServerParts;

// A service that takes versions from trainers and gives them to workers.
//
// Order of calls: it runs from Start until Shutdown or the destructor, which shuts it down at once. OpenVersion any
// number of times meanwhile.
// Threads: thread-safe; it has threads of its own, and calls nobody but what the options' callbacks name.
// Ownership: it owns all that it started. A VersionPush of OpenVersion must be destroyed before the server is.
// After a fork: FAILED_PRECONDITION in the child, and nothing happens to the parent's service.
class RefitServer {
 public:
  // Starts it; calls are served when it returns. INVALID_ARGUMENT for options that are out of range, do not go
  // together, or name files that cannot be used: the message names the setting by its flag, as `refit-server --help`
  // does. UNAVAILABLE, naming the address, if it cannot listen there. FAILED_PRECONDITION in a child of a fork whose
  // parent used gRPC.
  static absl::StatusOr<std::unique_ptr<RefitServer>> Start(const ServerOptions& options);
  // For StartServer (refit/relay.h), which starts relays, too: makes what takes their versions from above. Start
  // refuses to start a relay, INVALID_ARGUMENT.
  using MakeUpstream = std::function<std::unique_ptr<Upstream>(ServerParts& parts, const ServerOptions& options)>;
  static absl::StatusOr<std::unique_ptr<RefitServer>> Start(const ServerOptions& options, const MakeUpstream& make);
  ~RefitServer();

  // The addresses that it listens on, with the ports that were chosen, in the order of ServerOptions::listen.
  const std::vector<std::string>& addresses() const { return addresses_; }
  // The first of them.
  const std::string& address() const { return addresses_.front(); }
  // The first port among them. 0: there are only Unix sockets.
  int port() const;
  // Where metrics are served. Empty: nowhere.
  std::string metrics_address() const;
  // The additional address where health probes are answered. Empty: none.
  std::string health_address() const;

  // Opens a version of these native tensors from within this process: no network hop, tensors are converted straight
  // into the version's memory, by the calling thread and those of ServerOptions::convert_threads. Of `options`,
  // on_waiting and timeout do not count: nothing is waited for.
  //
  // Errors as Publisher::Open, and INVALID_ARGUMENT for a world other than 1. A push into a streamed version
  // (StoreOptions::retain_versions 0) ends with UNAVAILABLE once there is no memory until workers have taken something:
  // such versions are pushed over the wire, which waits.
  absl::StatusOr<std::unique_ptr<VersionPush>> OpenVersion(const PublishOptions& options,
                                                           std::vector<TensorSpec> native);

  // Refuses new calls, lets current calls run until `grace` is over, then cancels them and waits for them. Idempotent.
  void Shutdown(std::chrono::milliseconds grace);

  // Cancels all current calls, so that a Shutdown that waits for them ends.
  void CancelCalls();

 private:
  struct Impl;
  RefitServer(OwnedByProcess<Impl> impl, std::vector<std::string> addresses);
  void LogStart(const ServerOptions& options) const;
  OwnedByProcess<Impl> impl_;
  const std::vector<std::string> addresses_;
};

}  // namespace refit

// The whole service in one object: for the refit-server program, and for a trainer that embeds it.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "refit/fork_guard.h"
#include "refit/server_options.h"
#include "server/push/version_builder.h"

namespace refit {

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

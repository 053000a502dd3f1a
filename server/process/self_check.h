// Checks by connecting that this process still accepts connections.
//
// A gRPC server can stop accepting for good while the rest of it works: gRPC before 1.57 does so when the process runs
// out of file descriptors (CVE-2023-4785). Nothing in the process is notified. A successful connect proves nothing,
// because the kernel completes connections that no process accepts.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace refit {

struct SelfCheckOptions {
  // Where the server listens: "host:port" or "unix:/path", as RefitServer::address().
  std::string address;
  // Whether the server uses TLS there. With the wrong protocol it would also answer, but log an error each time.
  bool tls = false;
  // How long the server may be unreachable before the check fails.
  std::chrono::milliseconds patience = std::chrono::seconds(4);
};

// Connects to the server several times within `patience`, sends the first bytes of HTTP/2 or TLS, and waits for proof
// that the connection was accepted: any byte, or its end. A TLS handshake stops after the server's first answer, so no
// certificate is needed or trusted.
class SelfCheck {
 public:
  // INVALID_ARGUMENT for an address that does not resolve. On failure, the check's thread calls `on_failure` once, with
  // what was tried and observed; then the check is over.
  static absl::StatusOr<std::unique_ptr<SelfCheck>> Start(const SelfCheckOptions& options,
                                                          std::function<void(const absl::Status&)> on_failure);
  // Stops at once, even during a connection attempt.
  ~SelfCheck();

 private:
  class Loop;
  explicit SelfCheck(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace refit

// Whether this process still takes connections, found out from outside: by connecting.
//
// A gRPC server can stop to accept for good while everything else in it goes on: gRPC before 1.57 does so when the
// process runs out of file descriptors (CVE-2023-4785). Nobody inside is told, and connecting alone proves nothing,
// since the kernel completes connections that nobody accepts.
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
  // Whether it expects TLS there. In the wrong tongue it would answer as well, but log an error each time.
  bool tls = false;
  // How long the server may be out of reach before it is given up.
  std::chrono::milliseconds patience = std::chrono::seconds(4);
};

// Connects to the server several times within `patience`, greets it as HTTP/2 or TLS does, and waits for a sign that
// somebody has accepted: any byte, or the connection's end. A TLS handshake goes no further than the server's first
// answer, so it needs no certificate and trusts none.
class SelfCheck {
 public:
  // INVALID_ARGUMENT for an address that does not resolve. `on_failure` is called once, from the check's own thread,
  // with what was tried and seen; the check is over then.
  static absl::StatusOr<std::unique_ptr<SelfCheck>> Start(const SelfCheckOptions& options,
                                                          std::function<void(const absl::Status&)> on_failure);
  // Stops at once, also amid a connection attempt.
  ~SelfCheck();

 private:
  class Loop;
  explicit SelfCheck(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace refit

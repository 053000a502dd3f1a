#include "server/watch/metrics_endpoint.h"

#include <arpa/inet.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>

#include <exception>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/net/address.h"
#include "refit/tensor_spec.h"

namespace refit {
namespace {

// A scrape takes milliseconds. A client that connects and sends nothing for longer would block others.
constexpr char kRequestTimeoutMs[] = "2000";
constexpr char kThreads[] = "2";

struct HostAndPort {
  std::string host;
  int port = 0;
};

// The web server would also accept lists and suffixes. Only HOST:PORT is passed to it.
bool Split(const std::string& address, HostAndPort& split) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return false;
  split.host = address.substr(0, colon) == "localhost" ? "127.0.0.1" : address.substr(0, colon);
  const std::string port = address.substr(colon + 1);
  if (port.empty() || port.find_first_not_of("0123456789") != std::string::npos) return false;
  if (!absl::SimpleAtoi(port, &split.port) || split.port > 65535) return false;
  in_addr parsed = {};
  return inet_pton(AF_INET, split.host.c_str(), &parsed) == 1;
}

absl::Status CannotListen(const std::string& address, absl::string_view why) {
  return absl::UnavailableError(
      absl::StrCat("cannot serve metrics on '", address, "'; is the address right and the port free? (", why, ")"));
}

}  // namespace

absl::Status MetricsEndpoint::CheckAddress(const std::string& address, bool beyond_loopback) {
  HostAndPort split;
  if (!Split(address, split)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "metrics are served on HOST:PORT, HOST being an IPv4 address or localhost, such as 127.0.0.1:9464; got '",
        Printable(address), "'"));
  }
  if (beyond_loopback || IsLocal(address)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "refusing to serve metrics on '", address,
      "', which is not loopback: they are plain HTTP, and tell anyone who reaches it of models and workers; use "
      "127.0.0.1 or localhost, or allow it with --allow-plaintext"));
}

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(
    const std::string& address, std::shared_ptr<prometheus::Collectable> metrics) {
  HostAndPort split;
  if (!Split(address, split)) return CheckAddress(address, true);
  const std::vector<std::string> options = {"listening_ports",    absl::StrCat(split.host, ":", split.port),
                                            "num_threads",        kThreads,
                                            "request_timeout_ms", kRequestTimeoutMs};
  try {
    auto exposer = std::make_unique<prometheus::Exposer>(options);
    const std::vector<int> ports = exposer->GetListeningPorts();
    if (ports.empty()) return CannotListen(address, "it listens nowhere");
    exposer->RegisterCollectable(metrics);
    return absl::WrapUnique(
        new MetricsEndpoint(std::move(metrics), std::move(exposer), absl::StrCat(split.host, ":", ports.front())));
  } catch (const std::exception& error) {
    return CannotListen(address, error.what());
  }
}

MetricsEndpoint::MetricsEndpoint(std::shared_ptr<prometheus::Collectable> metrics,
                                 std::unique_ptr<prometheus::Exposer> exposer, std::string address)
    : metrics_(std::move(metrics)), exposer_(std::move(exposer)), address_(std::move(address)) {}

MetricsEndpoint::~MetricsEndpoint() = default;

}  // namespace refit

// Serves metrics to Prometheus over plain HTTP.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace prometheus {
class Collectable;
class Exposer;
}  // namespace prometheus

namespace refit {

// Answers `GET /metrics` until it is destroyed. Thread-safe.
class MetricsEndpoint {
 public:
  // INVALID_ARGUMENT unless `address` is HOST:PORT, with an IPv4 address or localhost as HOST (the packaged web server
  // has no IPv6), and loopback unless `beyond_loopback`: there is no encryption and no authentication.
  static absl::Status CheckAddress(const std::string& address, bool beyond_loopback);

  // Listens on an address that passes CheckAddress; port 0: any free port. UNAVAILABLE, naming the address, if it
  // cannot.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(const std::string& address,
                                                                std::shared_ptr<prometheus::Collectable> metrics);
  // Waits up to 2 s, the interval at which the web server checks whether it must end.
  ~MetricsEndpoint();

  // With the port that was chosen.
  const std::string& address() const { return address_; }

 private:
  MetricsEndpoint(std::shared_ptr<prometheus::Collectable> metrics, std::unique_ptr<prometheus::Exposer> exposer,
                  std::string address);

  const std::shared_ptr<prometheus::Collectable> metrics_;
  const std::unique_ptr<prometheus::Exposer> exposer_;
  const std::string address_;
};

}  // namespace refit

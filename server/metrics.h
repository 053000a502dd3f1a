// The service's state as Prometheus metrics; server/METRICS.md lists them.
#pragma once

#include <prometheus/collectable.h>

#include <vector>

#include "server/server_context.h"

namespace refit {

// Reads the state when it is asked, and keeps nothing: samples are of versions that the store still knows, and of
// workers that the registry lists. Thread-safe; the state must outlive it.
class Metrics final : public prometheus::Collectable {
 public:
  explicit Metrics(const ServerState& state) : state_(state) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const ServerState& state_;
};

}  // namespace refit

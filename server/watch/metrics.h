// The service's state as Prometheus metrics; server/METRICS.md lists them.
#pragma once

#include <prometheus/collectable.h>

#include <vector>

#include "server/watch/observed.h"

namespace refit {

// Reads the state when it is scraped, and stores nothing. There are samples for versions that the store still knows,
// and for workers that the registry lists. Thread-safe. The state must outlive it.
class Metrics final : public prometheus::Collectable {
 public:
  explicit Metrics(const Observed& observed) : observed_(observed) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Observed& observed_;
};

}  // namespace refit

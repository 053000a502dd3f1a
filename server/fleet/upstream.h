// The service above a relay, as the parts of a service see it.
#pragma once

#include "refit/v1/inspect.pb.h"

namespace refit {

// server/relay implements it, with the client's library. Thread-safe.
class Upstream {
 public:
  virtual ~Upstream() = default;
  // Begins to take versions from above. Call it once, when the service listens.
  virtual void Start() = 0;
  // Ends that, and waits for its threads. Idempotent.
  virtual void Stop() = 0;
  virtual v1::RelayStatus Status() const = 0;
};

}  // namespace refit

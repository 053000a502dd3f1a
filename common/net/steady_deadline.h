// Deadlines for gRPC that do not depend on the wall clock.
#pragma once

#include <grpc/support/time.h>

#include <chrono>

namespace refit {

// A deadline `from_now`, by the clock of std::chrono::steady_clock: for calls, alarms, completion queues, and
// everything else of gRPC that takes a deadline. Not for times beyond 290 years.
inline gpr_timespec SteadyDeadline(std::chrono::nanoseconds from_now) {
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(from_now.count(), GPR_TIMESPAN));
}

}  // namespace refit

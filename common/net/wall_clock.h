// The wall-clock time, for people.
#pragma once

#include <cstdint>

#include "absl/time/clock.h"

namespace refit {

// Nanoseconds since the Unix epoch. The clock may jump by hours at any time, in either direction. So use
// std::chrono::steady_clock for intervals, deadlines and durations (deploy/check_clocks.sh checks that).
inline int64_t UnixNanos() { return absl::GetCurrentTimeNanos(); }

}  // namespace refit

// The time of day, for what people read.
#pragma once

#include <cstdint>

#include "absl/time/clock.h"

namespace refit {

// Nanoseconds since the Unix epoch. It may step by hours, either way, at any time: intervals, deadlines and durations
// are std::chrono::steady_clock's business (deploy/check_clocks.sh sees to that).
inline int64_t UnixNanos() { return absl::GetCurrentTimeNanos(); }

}  // namespace refit

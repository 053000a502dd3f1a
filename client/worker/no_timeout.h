#pragma once

#include <chrono>

namespace refit {

// Longer than any process lives, but small enough for every clock.
inline constexpr std::chrono::milliseconds kNoTimeout = std::chrono::hours(24 * 365);

}  // namespace refit

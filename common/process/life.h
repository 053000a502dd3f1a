// A number for what lives once.
#pragma once

#include <cstdint>

namespace refit {

// 64 random bits: unique, and never 0, for all practical purposes.
uint64_t NewLife();

}  // namespace refit

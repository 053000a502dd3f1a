// Warns at the start about limits of the process that are too low.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace refit {

// One line for each limit that is too low: the required and the actual value, where the limit is set, and what to do.
std::vector<std::string> LimitWarnings(uint64_t memory_budget_bytes);

}  // namespace refit

// What a service had better be told at its start about the limits that its process stands in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace refit {

// A line each: what is too little for what was asked, both numbers, where the limit stands, and what to do.
std::vector<std::string> LimitWarnings(uint64_t memory_budget_bytes);

}  // namespace refit

// What the system says about this process.
#pragma once

#include <cstdint>

namespace refit {

// All 0 where the system does not tell.
uint64_t ResidentBytes();
uint64_t OpenDescriptors();
uint64_t MaxDescriptors();
double CpuSeconds();

}  // namespace refit

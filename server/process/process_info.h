// Figures of the system about this process.
#pragma once

#include <cstdint>

namespace refit {

// These return 0 if the system does not tell.
uint64_t ResidentBytes();
uint64_t OpenDescriptors();
uint64_t MaxDescriptors();
uint64_t ThreadsOfProcess();
double CpuSeconds();

}  // namespace refit

// Raises the limit on open descriptors of this process.
#pragma once

#include <cstdint>

namespace refit {

// Raises the limit as far as the system allows without privileges, up to 65,536. That is far more than a fleet needs.
// Programs that loop over all descriptors up to the limit would take long with millions. Never lowers the limit.
// Returns the limit afterwards.
uint64_t RaiseDescriptorLimit();

}  // namespace refit

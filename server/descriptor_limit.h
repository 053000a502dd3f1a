// How many files and connections this process may have open.
#pragma once

#include <cstdint>

namespace refit {

// Raises the limit to what the system lets this process have without privileges; that limit.
uint64_t RaiseDescriptorLimit();

}  // namespace refit

// How many files and connections this process may have open.
#pragma once

#include <cstdint>

namespace refit {

// Raises the limit as far as the system lets this process without privileges, up to 65,536: far more than a fleet
// needs, while programs that go through all numbers up to the limit take long at millions. Never lowers it; gives what
// it is then.
uint64_t RaiseDescriptorLimit();

}  // namespace refit

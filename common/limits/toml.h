// Includes toml++ as every file of ours does: errors are values, and bad input is refused, not asserted on.
#pragma once

#define TOML_EXCEPTIONS 0
// Bad input reaches some of its assertions; what follows them refuses it.
#define TOML_ASSERT(condition) static_cast<void>(0)
#include <toml++/toml.h>

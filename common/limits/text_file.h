// Reads text that a person has written: settings, rules, tables.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace refit {

// The whole text, without a byte order mark. It may also come from a pipe. The errno's status if it cannot be read;
// INVALID_ARGUMENT if it is longer than 1 MiB, as a device may be, which no such text is.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);

}  // namespace refit

// Checks a service's options before it starts.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "refit/server_options.h"

namespace refit {

// Bytes that a message needs for a chunk in addition to its payload.
inline constexpr uint64_t kChunkOverheadBytes = 1024;

// INVALID_ARGUMENT, naming the flag and the expected value, for values that are out of range, contradict each other, or
// would expose the weights without an explicit option.
absl::Status CheckOptions(const ServerOptions& options);

// "mutual TLS, roles", for logs.
const char* DescribeSecurity(const ServerOptions& options);

}  // namespace refit

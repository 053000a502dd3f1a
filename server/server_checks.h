// Whether a service can run with its options.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "refit/server_options.h"

namespace refit {

// Bytes that a message needs for a chunk besides its payload.
inline constexpr uint64_t kChunkOverheadBytes = 1024;

// INVALID_ARGUMENT, naming the flag and what is expected, for values that are out of range, that do not go together, or
// that would leave the weights open to others unasked.
absl::Status CheckOptions(const ServerOptions& options);

// "mutual TLS, roles", for logs.
const char* DescribeSecurity(const ServerOptions& options);

}  // namespace refit

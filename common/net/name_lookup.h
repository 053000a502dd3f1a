// Finds all addresses of a name, as gRPC's own lookups find them: in the hosts file and by DNS.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace refit {

// The IP addresses that `name` leads to, each once, in no order that means anything; an IP address leads to itself.
// UNAVAILABLE, naming the name, if it is not found within `timeout`; CANCELLED soon after `is_cancelled` (may be null)
// returns true.
absl::StatusOr<std::vector<std::string>> LookUp(const std::string& name, std::chrono::milliseconds timeout,
                                                const std::function<bool()>& is_cancelled);

}  // namespace refit

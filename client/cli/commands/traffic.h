// How reports tell in which form a version's bytes came.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "refit/pull.h"

namespace refit::cli {

// "from 10.0.0.7:50051 (moved 2 times)". Empty if `server`, as it was given, says it already.
std::string RouteText(const std::string& server, const std::string& address, uint64_t moved);

// "as 10.9 MB of changes since version 7", or "unchanged since version 7". Empty if no base was used.
std::string ChangesText(const PullTraffic& traffic);

// "the base was not used: this service has no version 7". Empty if it was used, or if none was named.
std::string RefusalText(const PullTraffic& traffic);

// The fields `wire_bytes`, `base_version`, `base_refused`, `changed_elements` and `chunks`.
nlohmann::ordered_json ToJson(const PullTraffic& traffic);

}  // namespace refit::cli

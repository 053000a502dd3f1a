// The fleet as a tree: a service, its relays, and the workers below each.
#pragma once

#include <string>

#include "client/cli/terminal/table.h"
#include "refit/inspector.h"

namespace refit::cli {

// A row for the service itself, then one for each relay and worker, indented below the service that it is connected to.
Table FleetTree(const std::string& service, const v1::ListWorkersResponse& workers,
                const v1::ListVersionsResponse& versions);

}  // namespace refit::cli

// Finds this process's listening sockets, for libraries that do not expose them.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"

namespace refit {

// This process's sockets that listen on this TCP port or, with port 0, on this path; as far as /proc shows them.
std::vector<int> ListeningSockets(int port, absl::string_view unix_path = "");

}  // namespace refit

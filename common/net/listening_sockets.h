// Which of this process's descriptors listen, where a library keeps them to itself.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"

namespace refit {

// Sockets of this process that listen on this TCP port, or, with port 0, on this path. As far as /proc shows them.
std::vector<int> ListeningSockets(int port, absl::string_view unix_path = "");

}  // namespace refit

// The addresses on which a service listens.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace refit {

// The addresses of ServerOptions::listen, in its order.
std::vector<std::string> ListenAddresses(absl::string_view listen);

// The paths of those that are Unix sockets.
std::vector<std::string> UnixPaths(absl::string_view listen);

// `address` with the port that was chosen. A Unix socket's has none.
std::string WithPort(absl::string_view address, int port);

// 0: it is a Unix socket.
int PortOf(absl::string_view address);

}  // namespace refit

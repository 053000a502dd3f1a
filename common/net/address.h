// What an address says about where it leads.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace refit {

// Whether an address, or a gRPC peer ("ipv4:127.0.0.1:1234"), is on this host for certain: a loopback address, the name
// localhost, or a Unix socket. False for what cannot be read, and for any other name, whatever it begins with.
bool IsLocal(absl::string_view address);

// INVALID_ARGUMENT, saying what is wrong and what is expected, unless `address` is host:port, [ipv6]:port, unix:/path,
// or one of these after gRPC's dns:, ipv4: or ipv6:. Ports go from `least_port` to 65535. gRPC itself takes the rest of
// a port that is too large, and port 443 where there is none. Whether the host exists is not asked.
absl::Status CheckAddress(absl::string_view address, int least_port = 0);

}  // namespace refit

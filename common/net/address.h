// What an address says about where it leads.
#pragma once

#include "absl/strings/string_view.h"

namespace refit {

// Whether an address, or a gRPC peer ("ipv4:127.0.0.1:1234"), is on this host for certain: a loopback address, the name
// localhost, or a Unix socket. False for what cannot be read, and for any other name, whatever it begins with.
bool IsLocal(absl::string_view address);

}  // namespace refit

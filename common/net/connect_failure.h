// Explains why a connection failed, and what to check.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "common/net/credentials.h"

namespace refit {

// A text to append to "no connection to ADDRESS within 10 s": the reason from FromGrpc (may be empty) and what to
// check: ": Connection refused; does the service run there, without TLS?".
std::string ExplainConnectFailure(absl::string_view reason, const ClientSecurity& security);

}  // namespace refit

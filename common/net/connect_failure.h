// Why a connection did not come about, in words for who can mend it.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "common/net/credentials.h"

namespace refit {

// To be put behind "no connection to ADDRESS within 10 s": the reason, as FromGrpc gives it (may be empty), and what to
// look at: ": Connection refused; does the service run there, without TLS?".
std::string ExplainConnectFailure(absl::string_view reason, const ClientSecurity& security);

}  // namespace refit

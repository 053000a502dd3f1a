#include "common/net/connect_failure.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace refit {
namespace {

struct Hint {
  absl::string_view reason;
  absl::string_view text;
};

constexpr Hint kHints[] = {
    {"wrong version number", "what is there speaks no TLS: connect without it"},
    {"certificate verify failed", "its certificate is not signed by the authority that was given"},
    {"Hostname Verification", "its certificate is for other names; one of them can be given as the server's name"},
    {"Domain name not found", "is the name right?"},
    {"http1.x", "what is there is no service of ours, and no gRPC"},
};

absl::string_view HintFor(absl::string_view reason, const ClientSecurity& security) {
  for (const Hint& hint : kHints) {
    if (absl::StrContains(reason, hint.reason)) return hint.text;
  }
  if (!security.tls()) return "does the service run there, without TLS?";
  if (security.certificate.empty()) return "does the service run there, with TLS that asks for no certificate of ours?";
  return "does the service run there, with TLS, and do both sides trust each other?";
}

// "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host:
// Connection refused" begins with what says nothing to users: the reason proper is at the end.
absl::string_view ReasonOf(absl::string_view message) {
  for (const absl::string_view before : {": ", "::"}) {
    const size_t place = message.rfind(before);
    if (place != absl::string_view::npos) message.remove_prefix(place + before.size());
  }
  return message.substr(0, message.find_last_not_of(". ") + 1);
}

}  // namespace

std::string ExplainConnectFailure(absl::string_view grpc_message, const ClientSecurity& security) {
  const absl::string_view reason = ReasonOf(grpc_message);
  return absl::StrCat(reason.empty() ? "" : ": ", reason, "; ", HintFor(reason, security));
}

}  // namespace refit

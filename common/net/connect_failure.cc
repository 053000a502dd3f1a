#include "common/net/connect_failure.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace refit {
namespace {

struct Hint {
  absl::string_view reason;
  absl::string_view text;
};

constexpr Hint kHints[] = {
    {"wrong version number", "the service there does not answer with TLS: connect without it"},
    {"certificate verify failed",
     "its certificate is not signed by the authority that was given, has expired, or is not for services"},
    {"Hostname Verification", "its certificate is for other names; one of them can be given as the server's name"},
    {"Domain name not found", "is the name right?"},
    {"http1.x", "what is there is no service of ours, and no gRPC"},
};

// What is there but mute: the connection, or gRPC's greeting, did not come in time.
bool NoAnswerCame(absl::string_view reason) { return reason.empty() || absl::StrContains(reason, "timed out"); }

absl::string_view HintFor(absl::string_view reason, const ClientSecurity& security) {
  for (const Hint& hint : kHints) {
    if (absl::StrContains(reason, hint.reason)) return hint.text;
  }
  if (NoAnswerCame(reason))
    return "no answer: is the service stopped or overloaded, a firewall in between, or something else there?";
  if (!security.tls()) return "does the service run there, without TLS?";
  if (security.certificate.empty()) return "does the service run there, with TLS that asks for no certificate of ours?";
  return "does the service run there, with TLS, and do both sides trust each other?";
}

}  // namespace

std::string ExplainConnectFailure(absl::string_view reason, const ClientSecurity& security) {
  absl::ConsumePrefix(&reason, "cannot connect: ");
  return absl::StrCat(reason.empty() ? "" : ": ", reason, "; ", HintFor(reason, security));
}

}  // namespace refit

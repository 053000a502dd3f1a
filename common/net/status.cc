#include "common/net/status.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace refit {
namespace {

// A message is sent percent-encoded in a trailer. By default, peers refuse trailers above 8 KiB.
constexpr size_t kMaxMessageLength = 2048;
// gRPC's message for a peer that does not answer its pings.
constexpr char kKeepalive[] = "keepalive watchdog timeout";

// "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host:
// Connection refused": its beginning is of no use to users. The reason is at the end.
absl::string_view LastReason(absl::string_view message) {
  for (const absl::string_view before : {": ", "::"}) {
    const size_t place = message.rfind(before);
    if (place != absl::string_view::npos) message.remove_prefix(place + before.size());
  }
  return message.substr(0, message.find_last_not_of(". ") + 1);
}

std::string InPlainWords(const std::string& message) {
  if (message == kKeepalive) {
    return absl::StrCat("the other side does not answer: it hangs or was stopped, or its network is gone (", kKeepalive,
                        ")");
  }
  if (absl::StartsWith(message, "failed to connect to all addresses") ||
      absl::StartsWith(message, "DNS resolution failed")) {
    return absl::StrCat("cannot connect: ", LastReason(message));
  }
  return message;
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message(status.message());
  if (message.size() > kMaxMessageLength) message.replace(kMaxMessageLength, std::string::npos, "...");
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message);
}

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), InPlainWords(status.error_message()));
}

absl::Status FromPeer(const grpc::Status& status) {
  if (status.error_code() != grpc::StatusCode::CANCELLED) return FromGrpc(status);
  const std::string& said = status.error_message();
  const bool has_reason = !said.empty() && said != "CANCELLED";
  return absl::UnavailableError(absl::StrCat("the service, or a proxy in between, cancelled the call",
                                             has_reason ? ": " : "", has_reason ? said : ""));
}

absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload(
      [&](absl::string_view type, const absl::Cord& payload) { annotated.SetPayload(type, payload); });
  return annotated;
}

}  // namespace refit

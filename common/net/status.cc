#include "common/net/status.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

// A message travels percent-encoded in a trailer; peers refuse trailers beyond 8 KiB by default.
constexpr size_t kMaxMessageLength = 2048;
// gRPC's words for a peer that does not answer its pings.
constexpr char kKeepalive[] = "keepalive watchdog timeout";

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message(status.message());
  if (message.size() > kMaxMessageLength) message.replace(kMaxMessageLength, std::string::npos, "...");
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message);
}

absl::Status FromGrpc(const grpc::Status& status) {
  std::string message = status.error_message();
  if (message == kKeepalive) {
    message = absl::StrCat("the other side does not answer: it hangs or was stopped, or its network is gone (",
                           kKeepalive, ")");
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), message);
}

absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload(
      [&](absl::string_view type, const absl::Cord& payload) { annotated.SetPayload(type, payload); });
  return annotated;
}

}  // namespace refit

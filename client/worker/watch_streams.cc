#include "client/worker/watch_streams.h"

#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/net/byte_buffer.h"
#include "common/net/status.h"
#include "common/net/version_summary.h"

namespace refit {
namespace {

constexpr char kWatchMethod[] = "/refit.v1.PullService/WatchVersions";
constexpr std::chrono::milliseconds kStartTimeout = std::chrono::seconds(60);

OwnedByProcess<SubscriberStream> Open(const SubscriberConnection& connection, const v1::WatchVersionsRequest& request) {
  return MakeOwnedByProcess<SubscriberStream>(connection, kWatchMethod, request, kStartTimeout);
}

}  // namespace

WatchStream::WatchStream(std::shared_ptr<SubscriberConnection> connection, const v1::WatchVersionsRequest& request)
    : connection_(std::move(connection)),
      context_(absl::StrCat("watch of ", request.model(), " at ", connection_->address)),
      stream_(connection_->guard.forked() ? nullptr : Open(*connection_, request)) {}

absl::StatusOr<VersionSummary> WatchStream::Next(std::chrono::milliseconds timeout) {
  if (absl::Status status = connection_->guard.Check(context_); !status.ok()) return status;
  const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = (*stream_)->Read(timeout);
  if (!message.ok()) return Annotate(message.status(), context_);
  if (!message->has_value()) return Annotate(WhyEnded(), context_);
  v1::VersionEvent event;
  if (absl::Status status = Parse(**message, event); !status.ok()) {
    return absl::InternalError(absl::StrCat(context_, ": ", status.message()));
  }
  return FromProto(event.version());
}

absl::Status WatchStream::WhyEnded() {
  const absl::Status status = (*stream_)->Finish(kStartTimeout);
  return status.ok() ? absl::UnavailableError("the service ended the watch") : status;
}

PresenceStream::PresenceStream(const SubscriberConnection& connection, const v1::WatchVersionsRequest& request)
    : stream_(Open(connection, request)) {}

bool PresenceStream::IsAlive() {
  while ((*stream_)->HasNews()) {
    const auto message = (*stream_)->Read(std::chrono::milliseconds::zero());
    if (!message.ok() || !message->has_value()) return false;  // a service that sends versions is alive too
  }
  return true;
}

}  // namespace refit

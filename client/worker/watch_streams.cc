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

// In a child of a fork there is no route.
absl::StatusOr<std::shared_ptr<const Route>> RouteOf(const SubscriberConnection& connection) {
  if (absl::Status status = connection.CheckNotForked(); !status.ok()) return status;
  return connection.routes->Take();
}

OwnedByProcess<SubscriberStream> Open(const SubscriberConnection& connection,
                                      const absl::StatusOr<std::shared_ptr<const Route>>& route,
                                      const v1::WatchVersionsRequest& request) {
  if (!route.ok()) return nullptr;
  return MakeOwnedByProcess<SubscriberStream>(connection, *route, kWatchMethod, request, kStartTimeout);
}

std::string ContextOf(const SubscriberConnection& connection, const absl::StatusOr<std::shared_ptr<const Route>>& route,
                      const v1::WatchVersionsRequest& request) {
  return absl::StrCat("watch of ", request.model(), " at ", route.ok() ? (*route)->address : connection.address);
}

}  // namespace

WatchStream::WatchStream(std::shared_ptr<SubscriberConnection> connection, const v1::WatchVersionsRequest& request)
    : connection_(std::move(connection)),
      route_(RouteOf(*connection_)),
      context_(ContextOf(*connection_, route_, request)),
      stream_(Open(*connection_, route_, request)) {}

absl::StatusOr<VersionSummary> WatchStream::Next(std::chrono::milliseconds timeout) {
  if (absl::Status status = connection_->guard.Check(context_); !status.ok()) return status;
  if (!route_.ok()) return Annotate(route_.status(), context_);
  const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = (*stream_).ReadWhileInUse(timeout);
  if (!message.ok()) return Annotate(message.status(), context_);
  if (!message->has_value()) return Annotate(WhyEnded(), context_);
  v1::VersionEvent event;
  if (absl::Status status = Parse(**message, event); !status.ok()) {
    return absl::InternalError(absl::StrCat(context_, ": ", status.message()));
  }
  const VersionSummary version = FromProto(event.version());
  connection_->newest.See(version);
  return version;
}

absl::Status WatchStream::WhyEnded() {
  const absl::Status status = (*stream_)->Finish(kStartTimeout);
  if (!connection_->calls->cancelled().stopped()) connection_->routes->Leave(**route_);
  return status.ok() ? absl::UnavailableError("the service ended the watch") : status;
}

PresenceStream::PresenceStream(std::shared_ptr<SubscriberConnection> connection,
                               const v1::WatchVersionsRequest& request)
    : connection_(std::move(connection)), route_(RouteOf(*connection_)), stream_(Open(*connection_, route_, request)) {}

bool PresenceStream::IsAlive() {
  if (stream_ == nullptr || !connection_->routes->IsInUse(**route_)) return false;
  while ((*stream_)->HasNews()) {
    const auto message = (*stream_)->Read(std::chrono::milliseconds::zero());
    if (!message.ok() || !message->has_value()) return false;  // a service that sends versions is alive too
  }
  return true;
}

}  // namespace refit

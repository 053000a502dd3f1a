#include "client/worker/subscriber_connection.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/calls/unary_call.h"
#include "client/worker/spare_subscribers.h"
#include "common/net/address.h"
#include "common/net/descriptor_client.h"
#include "common/net/shared_segment.h"
#include "refit/v1/inspect.grpc.pb.h"

namespace refit {
namespace {

constexpr std::chrono::seconds kInfoTimeout{10};

}  // namespace

absl::Status SubscriberConnection::CheckNotForked() const {
  return guard.Check(absl::StrCat("subscriber to ", address));
}

absl::Status SubscriberConnection::TryToShare(const Route& route) const {
  if (transport == Transport::kWire || (transport == Transport::kAuto && !IsLocal(route.address))) {
    return absl::UnavailableError("not asked for");
  }
  const std::unique_ptr<v1::InspectService::Stub> stub = v1::InspectService::NewStub(route.channel);
  const absl::StatusOr<v1::GetServerInfoResponse> info =
      CallUnary(*stub, &v1::InspectService::Stub::GetServerInfo, v1::GetServerInfoRequest(), kInfoTimeout,
                "asked for its memory", calls);
  if (!info.ok()) return info.status();
  if (!info->has_shared_memory()) return absl::UnavailableError("the service shares no memory");
  return MappedSegment::Open(info->shared_memory(), DescriptorClient(route.address)).status();
}

absl::StatusOr<std::shared_ptr<SubscriberConnection>> ConnectSubscriber(const ChannelOptions& options) {
  std::shared_ptr<SubscriberConnection> connection = MakeOwnedByProcess<SubscriberConnection>();
  connection->address = options.address;
  connection->transport = options.transport;
  connection->spares = std::make_shared<SpareSubscribers>(options);
  absl::StatusOr<std::unique_ptr<Routes>> routes = Routes::Connect(options, connection->calls);
  if (!routes.ok()) return routes.status();
  connection->routes = *std::move(routes);
  return connection;
}

}  // namespace refit

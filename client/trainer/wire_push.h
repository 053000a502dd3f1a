// A version that is pushed to a remote service.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/calls/active_calls.h"
#include "common/net/channel.h"
#include "refit/box.h"
#include "refit/publish_options.h"
#include "refit/version_push.h"

namespace refit {

// What all pushes of a publisher share.
struct ServiceConnection {
  std::string address;
  Transport transport = Transport::kAuto;
  std::shared_ptr<grpc::Channel> channel;
  std::shared_ptr<ActiveCalls> calls;
};

// Opens or joins the version on a stream of its own; see Publisher::OpenShards.
absl::StatusOr<std::unique_ptr<VersionPush>> OpenWirePush(const ServiceConnection& service,
                                                          const PublishOptions& options,
                                                          std::vector<TensorPart> shards);

}  // namespace refit

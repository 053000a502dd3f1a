// Several connections to one service.
#pragma once

#include <grpcpp/channel.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "client/calls/active_calls.h"
#include "refit/channel_options.h"

namespace refit {

// The first connection, and more that are made when they are asked for, and kept. Thread-safe.
class Connections {
 public:
  // `options` are those of the first; cancelling `calls` ends attempts to connect.
  Connections(ChannelOptions options, std::shared_ptr<grpc::Channel> first, const std::shared_ptr<ActiveCalls>& calls);

  // Connection number `index`, 0 being the first. Errors as Connect.
  absl::StatusOr<std::shared_ptr<grpc::Channel>> Get(size_t index);

 private:
  const ChannelOptions options_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;  // null: not made yet
};

}  // namespace refit

// Streams that stay open at the service in use: a watch of versions, and a worker's presence. They end when the
// subscriber takes another connection.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "client/worker/subscriber_connection.h"
#include "client/worker/subscriber_stream.h"
#include "refit/fork_guard.h"
#include "refit/v1/pull.pb.h"
#include "refit/watch.h"

namespace refit {

class WatchStream final : public VersionWatch {
 public:
  // In a child of a fork it opens nothing.
  WatchStream(std::shared_ptr<SubscriberConnection> connection, const v1::WatchVersionsRequest& request);

  absl::StatusOr<VersionSummary> Next(std::chrono::milliseconds timeout) override;

 private:
  absl::Status WhyEnded();

  const std::shared_ptr<SubscriberConnection> connection_;
  const absl::StatusOr<std::shared_ptr<const Route>> route_;
  const std::string context_;
  const OwnedByProcess<SubscriberStream> stream_;  // null without a route
};

class PresenceStream final : public WorkerPresence {
 public:
  PresenceStream(std::shared_ptr<SubscriberConnection> connection, const v1::WatchVersionsRequest& request);

  // False also once another connection is in use.
  bool IsAlive() override;

 private:
  const std::shared_ptr<SubscriberConnection> connection_;
  const absl::StatusOr<std::shared_ptr<const Route>> route_;
  const OwnedByProcess<SubscriberStream> stream_;  // null without a route
};

}  // namespace refit

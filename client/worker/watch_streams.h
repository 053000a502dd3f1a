// Streams that stay open: a watch of versions, and a worker's presence.
#pragma once

#include <memory>
#include <string>

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
  const std::string context_;
  const OwnedByProcess<SubscriberStream> stream_;
};

class PresenceStream final : public WorkerPresence {
 public:
  PresenceStream(const SubscriberConnection& connection, const v1::WatchVersionsRequest& request);

  bool IsAlive() override;

 private:
  const OwnedByProcess<SubscriberStream> stream_;
};

}  // namespace refit

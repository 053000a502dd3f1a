// One pull, over as many streams, and services, as it needs.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/worker/backoff.h"
#include "client/worker/pull_receiver.h"
#include "client/worker/subscriber_connection.h"
#include "client/worker/subscriber_stream.h"
#include "common/net/version_key.h"
#include "refit/pull.h"
#include "refit/v1/pull.pb.h"

namespace refit {

// Runs the first stream, and those that resume it after an interruption. Options and sink must outlive it.
class PullRun {
 public:
  PullRun(std::shared_ptr<SubscriberConnection> connection, const PullOptions& options, TensorSink& sink);

  // Call it once.
  absl::StatusOr<PullResult> Run();

 private:
  using Clock = std::chrono::steady_clock;

  // kCut: it was interrupted, and not because of what the service sent. kRefused: this service does not serve the pull;
  // another one may.
  enum class Why { kOther, kCut, kRefused };
  struct StreamEnd {
    absl::Status status;
    Why why = Why::kOther;
  };

  StreamEnd RunStream();
  absl::Status TakeRoute();
  StreamEnd NoRoute(const absl::Status& status);
  std::optional<VersionKey> LeastWanted() const;
  v1::PullRequest NextRequest(bool shared_memory) const;
  StreamEnd Receive(SubscriberStream& stream);
  StreamEnd End(SubscriberStream& stream);
  bool GoesOnUnmapped(const StreamEnd& end);
  bool GoesOnWithoutBase(const StreamEnd& end);
  bool MayResume(const StreamEnd& end, bool gained, Clock::time_point last_gain);
  bool GoesElsewhere(const StreamEnd& end);
  absl::Status Failure(const absl::Status& status) const;
  absl::string_view WithoutContext(const absl::Status& status) const;

  const std::shared_ptr<SubscriberConnection> connection_;
  const PullOptions& options_;
  std::string context_;                 // names the service
  std::shared_ptr<const Route> route_;  // of the present stream; null: none was to be had
  // Why services refused the pull, by address. They are not asked again before the others were.
  std::map<std::string, absl::Status> refusals_;
  PullReceiver receiver_;
  Backoff backoff_;
  std::chrono::nanoseconds waited_{0};
  absl::Status cut_;        // the first error since something was received
  std::string not_mapped_;  // the reason; after it nothing is mapped any more
  uint64_t resumed_ = 0;
  uint64_t moved_ = 0;
  int damaged_ = 0;
};

}  // namespace refit

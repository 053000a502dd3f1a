// One pull over several connections.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/calls/active_calls.h"
#include "client/worker/asked_manifest.h"
#include "client/worker/base_part.h"
#include "client/worker/joint_tensors.h"
#include "client/worker/part_cursor.h"
#include "client/worker/part_sink.h"
#include "client/worker/spare_subscribers.h"
#include "client/worker/subscriber_connection.h"
#include "refit/pull.h"

namespace refit {

// Each connection pulls boxes of its own of the same version, as any worker may, verifies them, and resumes where it
// was cut. What they make is verified again, as a whole. Everything that it is given must outlive it.
class StripedPull {
 public:
  StripedPull(std::shared_ptr<SubscriberConnection> connection, SpareSubscribers& spares, const PullOptions& options,
              TensorSink& sink);

  // Call it once.
  absl::StatusOr<PullResult> Run();

 private:
  using Clock = std::chrono::steady_clock;
  // One connection, and what it pulls.
  struct Lane {
    std::vector<AskedPart> asked;
    std::unique_ptr<Subscriber> subscriber;
    std::thread thread;
    bool is_first = false;
    bool is_pulling = true;  // not, if it is refused at the moment, or has ended
  };

  size_t Streams() const;
  absl::StatusOr<PullResult> PullAlone();
  absl::Status PullTrial(PartCursor& cursor);
  absl::Status PullNext(PartCursor& cursor, uint64_t bytes, size_t streams);
  void Divide(const std::vector<PartSlice>& slices, size_t streams);
  absl::Status RunLane(Lane& lane);
  absl::Status PullLane(Lane& lane);
  void SetPulling(Lane& lane, bool is_pulling);
  bool MayWait();
  PullOptions OptionsOf(const Lane& lane) const;
  absl::Status Add(const PullResult& result, bool is_first);
  absl::Status Verify();
  void Cancel();

  const std::shared_ptr<SubscriberConnection> connection_;
  SpareSubscribers& spares_;
  const PullOptions& options_;
  TensorSink& sink_;
  const std::string context_;
  AskedManifest manifest_;
  std::unique_ptr<JointTensors> joint_;
  std::unique_ptr<BaseParts> base_;

  std::mutex mutex_;
  bool cancelled_ = false;  // guarded by mutex_, as are the members below while lanes are under way
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::optional<Clock::time_point> served_at_;  // when a connection was served last, whole
  PullResult result_;
};

}  // namespace refit

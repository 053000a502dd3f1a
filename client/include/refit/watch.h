// Streams of a subscriber that stay open: the states of versions, and a worker's presence.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "refit/version_summary.h"

namespace refit {

// A plain value.
struct WatchOptions {
  std::string model = "default";
  // Versions up to this number are left out; with `trainer_epoch`, those of this run.
  std::optional<uint64_t> after = std::nullopt;
  // Versions of runs before this one are left out.
  std::optional<uint64_t> trainer_epoch = std::nullopt;
  // As PullOptions'.
  std::string worker = {};
  uint64_t life = 0;
};

// The states of a model's versions, as they change. Call Next until it fails; the watch is over then. One thread at a
// time. It may outlive its subscriber.
class VersionWatch {
 public:
  virtual ~VersionWatch() = default;
  // The next change; first the present state of each version. A slow reader may miss states, never a version's last
  // one. DEADLINE_EXCEEDED if nothing changes for so long; UNAVAILABLE when the service ends the watch or is gone;
  // CANCELLED after Subscriber::Cancel; FAILED_PRECONDITION in a child of a fork.
  virtual absl::StatusOr<VersionSummary> Next(std::chrono::milliseconds timeout) = 0;
};

// Shows that a worker is there: the service counts it as connected as long as this lives, and the service. It has no
// thread: what became of it is found out when it is asked. One thread at a time. It may outlive its subscriber.
class WorkerPresence {
 public:
  virtual ~WorkerPresence() = default;
  // False once the service, or the connection, is gone.
  virtual bool IsAlive() = 0;
};

}  // namespace refit

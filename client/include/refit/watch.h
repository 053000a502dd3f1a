// Streams that stay open: watching versions, and showing a worker's presence.
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
  // Omits versions up to this number; with `trainer_epoch`, those of this run.
  std::optional<uint64_t> after = std::nullopt;
  // Omits versions of earlier runs.
  std::optional<uint64_t> trainer_epoch = std::nullopt;
  // As PullOptions'.
  std::string worker = {};
  uint64_t life = 0;
};

// Returns the states of a model's versions as they change. Call Next until it fails; then the watch is over. Use it
// from one thread at a time. It may outlive its subscriber.
class VersionWatch {
 public:
  virtual ~VersionWatch() = default;
  // Returns the next change, beginning with the current state of each version. A slow reader may miss intermediate
  // states, but never a version's last one. DEADLINE_EXCEEDED if nothing changes within `timeout`; UNAVAILABLE when the
  // service ends the watch or is gone; CANCELLED after Subscriber::Cancel; FAILED_PRECONDITION in a child of a fork.
  virtual absl::StatusOr<VersionSummary> Next(std::chrono::milliseconds timeout) = 0;
};

// Shows the service that a worker is present: the service counts the worker as connected as long as this object and the
// service live. It has no thread; the state of the stream is checked only in IsAlive. Use it from one thread at a time.
// It may outlive its subscriber.
class WorkerPresence {
 public:
  virtual ~WorkerPresence() = default;
  // False once the service or the connection is lost.
  virtual bool IsAlive() = 0;
};

}  // namespace refit

// Stages a version, and installs it.
#pragma once

#include <cstdint>
#include <limits>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/calls/stop_flag.h"
#include "client/worker/base_in_use.h"
#include "client/worker/installed_versions.h"
#include "client/worker/memory_in_use.h"
#include "client/worker/reporter.h"
#include "common/tensor/buffer_pool.h"
#include "refit/subscriber.h"
#include "refit/version_summary.h"
#include "refit/worker.h"

namespace refit {

// Which version to pull. Without a number, the newest committed one.
struct Wanted {
  static Wanted Exactly(const VersionSummary& version) { return {version.version, version.trainer_epoch}; }

  std::optional<uint64_t> number;
  std::optional<uint64_t> trainer_epoch;
};

// Thread-safe: one staging or install runs at a time, others wait for it. Everything that it is given must outlive it.
class Refitter {
 public:
  Refitter(Subscriber& subscriber, const WorkerOptions& options, InstalledVersions& versions, Reporter& reporter,
           const StopFlag& stop)
      : subscriber_(subscriber),
        options_(options),
        versions_(versions),
        reporter_(reporter),
        stop_(stop),
        base_(options.keep_base) {}

  // Stages and installs. Returns the version then in use. A version that is already in use is not pulled again.
  absl::StatusOr<VersionSummary> Refit(const Wanted& wanted, Way way);
  // Installs the version that was in use before, from the service unless it can be had without.
  absl::StatusOr<VersionSummary> RollBack(const VersionSummary& previous);

  // Follow's two steps. Between them the version may wait for its release. A failed install is reported, but is no
  // error as long as the old version is still in use. The version is not due again.
  absl::StatusOr<Staging> StageFollowing(const Wanted& wanted);
  absl::Status InstallFollowing(Staging& staging);

 private:
  // The functions below need mutex_ held.
  absl::Status Begin();
  absl::StatusOr<VersionSummary> RefitNow(const Wanted& wanted, Way way);
  absl::StatusOr<Staging> Stage(const Wanted& wanted, Way way);
  absl::StatusOr<Staging> StageWhole(const Wanted& wanted, Way way, const std::string& why);
  absl::Status Install(Staging& staging);
  absl::Status ChangeMemory(const Staging& staging);
  absl::Status TakeBack(const Staging& staging);
  absl::Status Failed(const VersionSummary& version, const absl::Status& status);

  Subscriber& subscriber_;
  const WorkerOptions& options_;
  InstalledVersions& versions_;
  Reporter& reporter_;
  const StopFlag& stop_;

  std::mutex mutex_;
  BaseInUse base_;
  MemoryInUse memory_;  // of a worker that receives in place
  BufferPool pool_{std::numeric_limits<int64_t>::max()};
};

}  // namespace refit

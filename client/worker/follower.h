// Follows a model's versions during one watch.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/worker/backoff.h"
#include "client/worker/installed_versions.h"
#include "client/worker/refitter.h"
#include "client/worker/reporter.h"
#include "common/net/version_key.h"
#include "refit/subscriber.h"
#include "refit/version_summary.h"
#include "refit/watch.h"
#include "refit/worker.h"

namespace refit {

// Lives as long as the watch. A new watch begins with the state of every version, so that nothing is missed. Use it
// from one thread at a time. Everything that it is given must outlive it.
class Follower {
 public:
  Follower(Subscriber& subscriber, const WorkerOptions& options, InstalledVersions& versions, Reporter& reporter,
           Refitter& refitter);

  // Stages and installs each version that is due. Returns OK once `done`, called after each install, returns true;
  // otherwise the reason why a new watch is needed. Resets `backoff` after each refit.
  absl::Status Run(Backoff& backoff, const std::function<bool()>& done);

 private:
  absl::Status Refit(VersionSummary version);
  absl::StatusOr<VersionSummary> AwaitRelease(const VersionKey& version);
  void LookAtOtherRun(const VersionSummary& offered);
  bool IsOfThisVersion(const absl::Status& status) const;

  const WorkerOptions& options_;
  InstalledVersions& versions_;
  Reporter& reporter_;
  Refitter& refitter_;
  const std::unique_ptr<VersionWatch> watch_;
};

}  // namespace refit

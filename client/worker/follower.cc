#include "client/worker/follower.h"

#include <utility>

#include "client/worker/no_timeout.h"

namespace refit {

Follower::Follower(Subscriber& subscriber, const WorkerOptions& options, InstalledVersions& versions,
                   Reporter& reporter, Refitter& refitter)
    : options_(options),
      versions_(versions),
      reporter_(reporter),
      refitter_(refitter),
      watch_(subscriber.StartWatch({.model = options.pull.model, .worker = options.pull.worker})) {}

absl::Status Follower::Run(Backoff& backoff, const std::function<bool()>& done) {
  if (!reporter_.BePresent()) reporter_.ReportAgain();
  while (true) {
    absl::StatusOr<VersionSummary> version = watch_->Next(kNoTimeout);
    if (!version.ok()) return version.status();
    versions_.Hear(*version);
    if (!versions_.IsDue(*version)) {
      LookAtOtherRun(*version);
      continue;
    }
    if (absl::Status status = Refit(*std::move(version)); !status.ok()) return status;
    backoff.Reset();
    if (done && done()) return absl::OkStatus();
  }
}

absl::Status Follower::Refit(VersionSummary version) {
  absl::StatusOr<Staging> staging = Staging{};
  while (true) {
    // In place, a version overwrites the one in use, so it cannot be staged before its release.
    if (options_.in_place && version.installs_held) {
      absl::StatusOr<VersionSummary> next = AwaitRelease(KeyOf(version));
      if (!next.ok()) return next.status();
      version = *std::move(next);
      continue;
    }
    const bool newest = version.state == VersionState::kCommitted && !options_.in_place;
    staging = refitter_.StageFollowing(newest ? Wanted() : Wanted::Exactly(version));
    if (!staging.ok()) return IsOfThisVersion(staging.status()) ? absl::OkStatus() : staging.status();
    const VersionSummary& staged = staging->version.version;
    if (!staged.installs_held || options_.in_place) break;
    absl::StatusOr<VersionSummary> next = AwaitRelease(KeyOf(staged));
    if (!next.ok()) return next.status();
    if (KeyOf(*next) == KeyOf(staged)) break;
    version = *std::move(next);
  }
  return refitter_.InstallFollowing(*staging);
}

// Waits for the release of the version, and returns it, or a newer one that was committed meanwhile.
absl::StatusOr<VersionSummary> Follower::AwaitRelease(const VersionKey& version) {
  while (true) {
    absl::StatusOr<VersionSummary> event = watch_->Next(kNoTimeout);
    if (!event.ok()) return event.status();
    const bool released = KeyOf(*event) == version && !event->installs_held;
    const bool superseded = version < KeyOf(*event) && event->state == VersionState::kCommitted;
    if (released || superseded) return event;
  }
}

// Reports once if the service offers a version of another run, which would not be installed; or notices that the
// service has the one in use after all.
void Follower::LookAtOtherRun(const VersionSummary& offered) {
  if (versions_.IsBackAtService(offered)) reporter_.ReportAgain();
  if (absl::Status status = versions_.ComplainOfOtherRun(offered); !status.ok()) reporter_.Tell(status);
}

// Whether the error is only about this version, which was aborted or is not available any more. The watch can then
// continue, because other versions will come.
bool Follower::IsOfThisVersion(const absl::Status& status) const {
  if (versions_.torn().has_value()) return false;
  if (absl::IsAborted(status)) return true;
  if (!absl::IsFailedPrecondition(status) && !absl::IsNotFound(status)) return false;
  reporter_.Tell(status);
  return true;
}

}  // namespace refit

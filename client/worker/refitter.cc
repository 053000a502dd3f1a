#include "client/worker/refitter.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/worker/stage_sink.h"
#include "common/net/status.h"

namespace refit {

using Clock = std::chrono::steady_clock;

absl::StatusOr<VersionSummary> Refitter::Refit(const Wanted& wanted, Way way) {
  const std::lock_guard lock(mutex_);
  if (stop_.stopped()) return absl::CancelledError(absl::StrCat("worker ", options_.pull.worker, " was stopped"));
  reporter_.BePresent();
  absl::StatusOr<StagedVersion> staged = Stage(wanted, way);
  if (!staged.ok()) return staged.status();
  VersionSummary summary = staged->version;
  if (versions_.IsInstalled(summary)) return summary;
  if (absl::Status status = Install(*staged); !status.ok()) return status;
  return summary;
}

absl::StatusOr<StagedVersion> Refitter::StageFollowing(const Wanted& wanted) {
  const std::lock_guard lock(mutex_);
  return Stage(wanted, Way::kFollow);
}

absl::Status Refitter::InstallFollowing(StagedVersion& staged) {
  const std::lock_guard lock(mutex_);
  if (!versions_.IsDue(staged.version)) return absl::OkStatus();  // a call has installed it meanwhile
  const VersionSummary version = staged.version;
  const absl::Status status = Install(staged);
  if (status.ok() || versions_.torn().has_value()) return status;
  reporter_.Tell(status);  // reported once: the next version may succeed
  versions_.SetFailed(version);
  return absl::OkStatus();
}

absl::StatusOr<StagedVersion> Refitter::Stage(const Wanted& wanted, Way way) {
  PullOptions pull = options_.pull;
  pull.version = wanted.number;
  pull.trainer_epoch = wanted.trainer_epoch;
  if (const std::optional<VersionSummary> installed = versions_.installed()) {
    pull.installed = installed->version;
    pull.installed_epoch = installed->trainer_epoch;
    if (options_.deltas) pull.base = base_.Get();
  }
  if (options_.deltas && options_.base) pull.base = options_.base();
  StagedVersion staged;
  StageSink sink(options_, versions_, reporter_, pool_, way, staged);
  absl::StatusOr<PullResult> result = subscriber_.Pull(pull, sink);
  if (sink.is_installed()) {
    if (std::optional<VersionSummary> installed = versions_.installed()) staged.version = *std::move(installed);
    return staged;
  }
  // The abort of a version is the trainer's decision, and no failure of this worker.
  if (absl::IsAborted(result.status()) && !versions_.torn().has_value()) return result.status();
  if (!result.ok() && sink.was_refused() && way != Way::kBack) {
    const bool was_other_run = versions_.of_other_run();
    reporter_.ReportAgain();  // the answer tells whether the service knows the version in use
    if (versions_.of_other_run() != was_other_run) return Stage(wanted, way);
  }
  if (!result.ok()) {
    VersionSummary version = sink.version();
    if (version.version == 0) version.version = wanted.number.value_or(0);
    return Failed(version, result.status());
  }
  staged.version = std::move(result->version);
  staged.skipped = std::move(result->skipped);
  staged.not_mapped = std::move(result->not_mapped);
  staged.stage_time = result->elapsed;
  staged.traffic = std::move(result->traffic);
  staged.selection_digest = result->selection_digest;
  if (!options_.in_place) {
    reporter_.Report(staged.version, WorkerPhase::kStaged, absl::OkStatus(), staged.stage_time);
  }
  return staged;
}

absl::Status Refitter::Install(StagedVersion& staged) {
  const VersionSummary version = staged.version;
  const std::chrono::nanoseconds stage_time = staged.stage_time;
  const Clock::time_point begin = Clock::now();
  if (options_.deltas) base_.Remember(staged);
  if (absl::Status status = options_.install(staged); !status.ok()) {
    return Failed(version, Annotate(status, absl::StrCat("worker ", options_.pull.worker, ": install of version ",
                                                         version.version)));
  }
  versions_.SetInstalled(version);
  base_.Use();
  reporter_.Report(version, WorkerPhase::kInstalled, absl::OkStatus(), stage_time, Clock::now() - begin);
  return absl::OkStatus();
}

absl::Status Refitter::Failed(const VersionSummary& version, const absl::Status& status) {
  if (version.version != 0 && !stop_.stopped()) {
    reporter_.Report(version, versions_.torn().has_value() ? WorkerPhase::kTorn : WorkerPhase::kFailed, status);
  }
  return status;
}

}  // namespace refit

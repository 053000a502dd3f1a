#include "client/worker/refitter.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/worker/stage_sink.h"
#include "common/net/status.h"

namespace refit {

using Clock = std::chrono::steady_clock;

absl::Status Refitter::Begin() {
  if (stop_.stopped()) return absl::CancelledError(absl::StrCat("worker ", options_.pull.worker, " was stopped"));
  reporter_.BePresent();
  return absl::OkStatus();
}

absl::StatusOr<VersionSummary> Refitter::Refit(const Wanted& wanted, Way way) {
  const std::lock_guard lock(mutex_);
  if (absl::Status status = Begin(); !status.ok()) return status;
  return RefitNow(wanted, way);
}

absl::StatusOr<VersionSummary> Refitter::RefitNow(const Wanted& wanted, Way way) {
  absl::StatusOr<Staging> staging = Stage(wanted, way);
  if (!staging.ok()) return staging.status();
  VersionSummary summary = staging->version.version;
  if (versions_.IsInstalled(summary)) return summary;
  if (absl::Status status = Install(*staging); !status.ok()) return status;
  return summary;
}

absl::StatusOr<VersionSummary> Refitter::RollBack(const VersionSummary& previous) {
  const std::lock_guard lock(mutex_);
  if (absl::Status status = Begin(); !status.ok()) return status;
  std::optional<Staging> back = memory_.WayBack(previous, options_.place);
  if (!back.has_value()) return RefitNow(Wanted::Exactly(previous), Way::kBack);
  if (absl::Status status = Install(*back); !status.ok()) return status;
  return previous;
}

absl::StatusOr<Staging> Refitter::StageFollowing(const Wanted& wanted) {
  const std::lock_guard lock(mutex_);
  return Stage(wanted, Way::kFollow);
}

absl::Status Refitter::InstallFollowing(Staging& staging) {
  const std::lock_guard lock(mutex_);
  const VersionSummary version = staging.version.version;
  if (!versions_.IsDue(version)) return absl::OkStatus();                  // a call has installed it meanwhile
  if (staging.deltas != nullptr && staging.of_state != memory_.state()) {  // a call has installed another
    absl::StatusOr<Staging> again = Stage(Wanted::Exactly(version), Way::kFollow);
    if (!again.ok()) return again.status();
    staging = *std::move(again);
  }
  const absl::Status status = Install(staging);
  if (status.ok() || versions_.torn().has_value()) return status;
  reporter_.Tell(status);  // reported once: the next version may succeed
  versions_.SetFailed(version);
  return absl::OkStatus();
}

absl::StatusOr<Staging> Refitter::Stage(const Wanted& wanted, Way way) {
  PullOptions pull = options_.pull;
  pull.version = wanted.number;
  pull.trainer_epoch = wanted.trainer_epoch;
  if (const std::optional<VersionSummary> installed = versions_.installed()) {
    pull.installed = installed->version;
    pull.installed_epoch = installed->trainer_epoch;
    if (options_.deltas) pull.base = options_.in_place ? memory_.Base() : base_.Get();
  }
  if (options_.deltas && options_.base && !options_.in_place) pull.base = options_.base();
  Staging staging;
  StageSink sink(options_, versions_, reporter_, pool_, memory_, way, staging);
  absl::StatusOr<PullResult> result = subscriber_.Pull(pull, sink);
  StagedVersion& staged = staging.version;
  if (sink.is_installed()) {
    if (std::optional<VersionSummary> installed = versions_.installed()) staged.version = *std::move(installed);
    return staging;
  }
  if (versions_.torn().has_value()) memory_.Forget();
  if (!result.ok() && !sink.gave_up().empty()) return StageWhole(wanted, way, sink.gave_up());
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
  staged.address = std::move(result->address);
  staged.moved = result->moved;
  staged.stage_time = result->elapsed;
  staged.traffic = std::move(result->traffic);
  staged.selection_digest = result->selection_digest;
  staging.of_state = memory_.state();
  if (!versions_.torn().has_value()) {
    reporter_.Report(staged.version, WorkerPhase::kStaged, absl::OkStatus(), staged.stage_time);
  }
  return staging;
}

// In place, over the version in use.
absl::StatusOr<Staging> Refitter::StageWhole(const Wanted& wanted, Way way, const std::string& why) {
  memory_.Forget();
  absl::StatusOr<Staging> staging = Stage(wanted, way);
  if (staging.ok()) staging->version.traffic.base_refused = why;
  return staging;
}

absl::Status Refitter::Install(Staging& staging) {
  StagedVersion& staged = staging.version;
  const VersionSummary version = staged.version;
  const std::chrono::nanoseconds stage_time = staged.stage_time;
  const Clock::time_point begin = Clock::now();
  if (options_.deltas) base_.Remember(staged);
  if (options_.in_place) memory_.Remember(staging);
  if (absl::Status status = ChangeMemory(staging); !status.ok()) return Failed(version, status);
  if (absl::Status status = options_.install(staged); !status.ok()) {
    if (absl::Status back = TakeBack(staging); !back.ok()) status = back;
    return Failed(version, Annotate(status, absl::StrCat("worker ", options_.pull.worker, ": install of version ",
                                                         version.version)));
  }
  versions_.SetInstalled(version);
  base_.Use();
  memory_.Use();
  reporter_.Report(version, WorkerPhase::kInstalled, absl::OkStatus(), stage_time, Clock::now() - begin);
  return absl::OkStatus();
}

// The worker is torn only while it writes: the report is sent before.
absl::Status Refitter::ChangeMemory(const Staging& staging) {
  if (staging.deltas == nullptr) return absl::OkStatus();
  reporter_.Report(staging.version.version, WorkerPhase::kTorn);
  versions_.SetTorn(staging.version.version);
  absl::Status status = staging.deltas->Apply();
  if (!status.ok()) memory_.Forget();
  return status;
}

// The install failed. The old version must be in use then.
absl::Status Refitter::TakeBack(const Staging& staging) {
  if (staging.deltas == nullptr) return absl::OkStatus();
  if (absl::Status status = staging.deltas->Apply(); !status.ok()) {
    memory_.Forget();
    return status;
  }
  versions_.SetWholeAgain();
  return absl::OkStatus();
}

absl::Status Refitter::Failed(const VersionSummary& version, const absl::Status& status) {
  if (version.version != 0 && !stop_.stopped()) {
    reporter_.Report(version, versions_.torn().has_value() ? WorkerPhase::kTorn : WorkerPhase::kFailed, status);
  }
  return status;
}

}  // namespace refit

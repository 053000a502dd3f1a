#include "client/worker/reporter.h"

#include <optional>

#include "absl/status/statusor.h"

namespace refit {

bool Reporter::BePresent() {
  {
    const std::lock_guard lock(presence_mutex_);
    if (presence_ != nullptr && presence_->IsAlive()) return false;
    presence_ = subscriber_.StartPresence(options_.pull.model, options_.pull.worker);
  }
  ReportAgain();
  return true;
}

bool Reporter::Report(const VersionSummary& version, WorkerPhase phase, const absl::Status& status,
                      std::chrono::nanoseconds stage_time, std::chrono::nanoseconds install_time) {
  WorkerReport report;
  report.model = options_.pull.model;
  report.worker = options_.pull.worker;
  report.version = version.version;
  report.trainer_epoch = version.trainer_epoch;
  report.manifest_digest = version.manifest_digest;
  report.phase = phase;
  if (!status.ok()) report.error = status.ToString();
  report.stage_time = stage_time;
  report.install_time = install_time;
  const absl::StatusOr<bool> foreign = subscriber_.Report(report);
  if (!foreign.ok() && !stop_.stopped()) Tell(foreign.status());
  return foreign.value_or(false);
}

void Reporter::ReportAgain() {
  const std::optional<VersionSummary> torn = versions_.torn();
  const std::optional<VersionSummary> installed = versions_.installed();
  if (torn.has_value()) versions_.SetOtherRun(Report(*torn, WorkerPhase::kTorn));
  if (installed.has_value()) versions_.SetOtherRun(Report(*installed, WorkerPhase::kInstalled));
}

void Reporter::Tell(const absl::Status& error) const {
  if (options_.on_error) options_.on_error(error);
}

}  // namespace refit

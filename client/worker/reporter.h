// Shows a worker's presence to the service, and reports its progress.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "client/calls/stop_flag.h"
#include "client/worker/installed_versions.h"
#include "refit/subscriber.h"
#include "refit/version_summary.h"
#include "refit/worker.h"
#include "refit/worker_report.h"

namespace refit {

// Shows that the worker is present, and reports its state. Lost reports have no consequences: the next report says
// more, and a new watch says everything. Thread-safe. Everything that it is given must outlive it.
class Reporter {
 public:
  Reporter(Subscriber& subscriber, const WorkerOptions& options, InstalledVersions& versions, const StopFlag& stop)
      : subscriber_(subscriber), options_(options), versions_(versions), stop_(stop) {}

  // Makes sure that the worker's presence is shown. If it was not, shows it and reports everything: the service may
  // have been restarted, and know nothing of this worker. Returns false if there was no need.
  bool BePresent();

  // Reports the worker's phase for `version`. Returns whether the service never had that version.
  bool Report(const VersionSummary& version, WorkerPhase phase, const absl::Status& status = absl::OkStatus(),
              std::chrono::nanoseconds stage_time = {}, std::chrono::nanoseconds install_time = {});

  // Reports what is torn and what is in use, and learns whether these are of another run.
  void ReportAgain();

  // Passes an error to the worker's owner.
  void Tell(const absl::Status& error) const;

 private:
  Subscriber& subscriber_;
  const WorkerOptions& options_;
  InstalledVersions& versions_;
  const StopFlag& stop_;

  std::mutex presence_mutex_;
  std::unique_ptr<WorkerPresence> presence_;  // guarded by presence_mutex_
};

}  // namespace refit

// What a worker shows and tells the service of itself.
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

// Shows that the worker is there, and reports how far it is. What does not arrive changes nothing here: the next report
// says more, and a new watch says all. Thread-safe. All that it is given must outlive it.
class Reporter {
 public:
  Reporter(Subscriber& subscriber, const WorkerOptions& options, InstalledVersions& versions, const StopFlag& stop)
      : subscriber_(subscriber), options_(options), versions_(versions), stop_(stop) {}

  // To a service that may have been restarted, and knows nothing of this worker. Tells it all if it does; false if
  // there was no need.
  bool BePresent();

  // How far the worker is with `version`. Whether the service never had that version.
  bool Report(const VersionSummary& version, WorkerPhase phase, const absl::Status& status = absl::OkStatus(),
              std::chrono::nanoseconds stage_time = {}, std::chrono::nanoseconds install_time = {});

  // What is torn and what is in use, and learns whether they are of another run.
  void ReportAgain();

  // Tells the worker's owner what went wrong.
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

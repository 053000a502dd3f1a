// Reports to the service above how this relay is, and which workers are below it.
#pragma once

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "refit/v1/inspect.pb.h"
#include "server/relay/above.h"
#include "server/server_parts.h"

namespace refit {

// A thread of its own reports after each change of the fleet, and every few seconds. A lost report has no consequences:
// the next one says all again. What it is given must outlive it; the connection's calls are cancelled before it is
// destroyed.
class ReportAbove {
 public:
  ReportAbove(const Above& above, ServerParts& parts, std::function<v1::RelayStatus()> status);
  ~ReportAbove();

  // This relay attends: what could not be reported before is reported now.
  void Wake() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run();
  absl::Status Report();

  const Above& above_;
  ServerParts& parts_;
  const std::function<v1::RelayStatus()> status_;

  absl::Mutex mutex_;
  bool changed_ ABSL_GUARDED_BY(mutex_) = true;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t observer_ = 0;
  std::thread thread_;  // last: it uses the members above
};

}  // namespace refit

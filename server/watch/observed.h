// The objects that inspection, metrics and health checks read.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "common/net/wall_clock.h"
#include "server/access/admission.h"
#include "server/fleet/upstream.h"
#include "server/fleet/worker_registry.h"
#include "server/process/work_queue.h"
#include "server/pull/pull_context.h"
#include "server/push/push_context.h"
#include "server/spool/spool.h"
#include "server/store/version_store.h"

namespace refit {

// Members are thread-safe or immutable, and outlive every call.
struct Observed {
  Admission& admission;
  VersionStore& store;
  WorkerRegistry& workers;
  PushContext& pushes;
  PullContext& pulls;
  WorkQueue& convert;
  const std::unique_ptr<Spool>& spool;        // null: nothing is kept on disk
  const std::unique_ptr<Upstream>& upstream;  // null: this is a root
  const std::string zone;                     // see ServerOptions
  const int64_t started_at_ns = UnixNanos();  // wall-clock time
  const std::chrono::steady_clock::time_point started_at = std::chrono::steady_clock::now();
};

}  // namespace refit

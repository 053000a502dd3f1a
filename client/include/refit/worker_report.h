// A worker's report to the service about a version. Fields are those of v1.ReportWorkerRequest in pull.proto.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace refit {

// How far a worker is with a version. Values equal refit.v1.WorkerPhase in the protocol.
enum class WorkerPhase {
  kUnspecified = 0,  // rejected by the service
  kStaged = 1,       // the worker has all of it, verified, in addition to the version in use
  kInstalled = 2,    // it is the version in use
  kTorn = 3,         // the worker overwrites the version in use, and has none until that is done
  kFailed = 4,       // it could not be staged or installed; the old version is still in use, unless the worker is torn
};

// A plain value.
struct WorkerReport {
  std::string model = "default";
  std::string worker;    // as in the worker's pulls and watches; not empty
  uint64_t version = 0;  // the version that `phase` refers to
  // As in VersionSummary. A report without it counts if the current run has a version with that number.
  std::optional<uint64_t> trainer_epoch;
  std::optional<uint64_t> manifest_digest;
  WorkerPhase phase = WorkerPhase::kUnspecified;
  std::string error;                         // the reason, with kFailed
  std::chrono::nanoseconds stage_time{0};    // for pulling and verifying; zero: not done
  std::chrono::nanoseconds install_time{0};  // zero: not done
  uint64_t life = 0;                         // as PullOptions'
};

}  // namespace refit

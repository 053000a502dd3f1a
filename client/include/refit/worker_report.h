// What a worker tells the service about a version. Field by field v1.ReportWorkerRequest of pull.proto.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace refit {

// How far a worker is with a version. Values equal refit.v1.WorkerPhase on the wire.
enum class WorkerPhase {
  kUnspecified = 0,  // refused by the service
  kStaged = 1,       // the worker has all of it, verified, beside the version in use
  kInstalled = 2,    // it is the version in use
  kTorn = 3,         // the worker writes it over the version in use, and has none until that is done
  kFailed = 4,       // it could not be staged or installed; what was in use still is, unless the worker is torn
};

// A plain value.
struct WorkerReport {
  std::string model = "default";
  std::string worker;    // as in the worker's pulls and watches; not empty
  uint64_t version = 0;  // the one that `phase` is about
  // VersionSummary's. A report without counts if the present run has a version of that number.
  std::optional<uint64_t> trainer_epoch;
  std::optional<uint64_t> manifest_digest;
  WorkerPhase phase = WorkerPhase::kUnspecified;
  std::string error;                         // with kFailed: why
  std::chrono::nanoseconds stage_time{0};    // of pulling and verifying; zero: not done
  std::chrono::nanoseconds install_time{0};  // zero: not done
  uint64_t life = 0;                         // as PullOptions'
};

}  // namespace refit

// The state of a service's versions and workers, which is polled.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "refit/inspector.h"

namespace refit::cli {

// The state of one model, or of all, at one moment.
struct FleetState {
  google::protobuf::RepeatedPtrField<v1::VersionSummary> versions;
  google::protobuf::RepeatedPtrField<v1::Worker> workers;
};

absl::StatusOr<FleetState> LookAtFleet(Inspector& inspector, const std::string& model);

// One bar for each version that is open or held, for the newest few versions, and for each worker. Bars are `width`
// columns wide.
std::vector<std::string> FleetBars(const FleetState& state, size_t width);

// Reports changes of the fleet as plain lines: at once when a state changes, and each second while bytes are sent.
class FleetNews {
 public:
  std::vector<std::string> Lines(const FleetState& state);
  std::optional<std::string> Line(const v1::VersionSummary& version);
  std::optional<std::string> Line(const v1::Worker& worker);

 private:
  using Clock = std::chrono::steady_clock;
  struct Told {
    std::string state;
    uint64_t bytes = 0;
    Clock::time_point at;
  };
  // Records the state of the version or worker `key`. Returns true if it changed enough to be reported.
  bool IsNews(const std::string& key, const std::string& state, uint64_t bytes);

  std::map<std::string, Told> told_;
};

// The condition of `--until N`: version N is committed, no worker is still pulling it, and at least `pulls` workers
// have received it whole.
class UntilCondition {
 public:
  UntilCondition(uint64_t version, uint64_t pulls) : version_(version), pulls_(pulls) {}

  // ABORTED, with the reason, if the condition can no longer hold: the version was aborted, or a worker failed to pull
  // it.
  absl::StatusOr<bool> Holds(const FleetState& state);

  // What the condition still waits for.
  std::string Missing() const;

 private:
  const uint64_t version_;
  const uint64_t pulls_;
  bool committed_ = false;
  std::set<std::pair<std::string, uint64_t>> completed_;  // may pull a newer version by now
};

}  // namespace refit::cli

// A service's versions and workers, looked at again and again.
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

// A bar a version that is open or held, the newest few, and one a worker; to be drawn `width` columns wide.
std::vector<std::string> FleetBars(const FleetState& state, size_t width);

// The same as plain lines, as far as there is news: at once when a state changed, each second while bytes move.
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
  // Notes what is told now of the version or worker `key`; whether that is news.
  bool IsNews(const std::string& key, const std::string& state, uint64_t bytes);

  std::map<std::string, Told> told_;
};

// `--until N`: version N is committed, no worker pulls it any more, and at least `pulls` got it whole.
class UntilCondition {
 public:
  UntilCondition(uint64_t version, uint64_t pulls) : version_(version), pulls_(pulls) {}

  // ABORTED, saying why, once it cannot come true: the version was aborted, or a worker failed to pull it.
  absl::StatusOr<bool> Holds(const FleetState& state);

  // What it still waits for.
  std::string Missing() const;

 private:
  const uint64_t version_;
  const uint64_t pulls_;
  bool committed_ = false;
  std::set<std::pair<std::string, uint64_t>> completed_;  // workers; they may pull a newer version by now
};

}  // namespace refit::cli

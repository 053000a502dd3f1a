#include "client/cli/commands/fleet.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/terminal/format.h"
#include "client/cli/terminal/listing.h"
#include "client/cli/terminal/progress.h"
#include "common/net/states.h"
#include "common/terminal/terminal.h"
#include "refit/tensor_spec.h"

namespace refit::cli {
namespace {

constexpr size_t kVersionsShown = 4;
constexpr size_t kWidestLabel = 24;
constexpr auto kNewsInterval = std::chrono::seconds(1);

bool IsShown(const v1::VersionSummary& version) {
  return version.state() == v1::VERSION_STATE_OPEN || version.state() == v1::VERSION_STATE_COMMITTED;
}

Bar VersionBar(const v1::VersionSummary& version) {
  const uint64_t done = version.converted_bytes();
  std::string note = StateName(version.state());
  if (const std::string ranks = RanksText(version); !ranks.empty()) absl::StrAppend(&note, "  ranks ", ranks);
  if (version.state() == v1::VERSION_STATE_OPEN) {
    absl::StrAppend(&note, "  ", FormatBytes(done), " of ", FormatBytes(version.bytes()), " converted  ");
  } else {
    absl::StrAppend(&note, "  ", FormatCount(version.tensors(), "tensor"), ", ", FormatBytes(version.bytes()), "  ");
  }
  absl::StrAppend(&note, FormatRate(done, Seconds(version)), "  ", FormatDuration(Seconds(version)));
  return {absl::StrCat("version ", version.version()), done, version.bytes(), note};
}

bool HasPulled(const v1::Worker& worker) { return worker.started_at_ns() != 0; }

std::string ChangesOf(const v1::Worker& worker) {
  if (!worker.has_base_version()) return "";
  return absl::StrCat(" (", FormatBytes(worker.wire_bytes()), " since version ", worker.base_version(), ")");
}

std::string WorkerNote(const v1::Worker& worker) {
  std::string note = absl::StrCat(StateName(worker.state()), worker.connected() ? "" : ", gone");
  if (HasPulled(worker)) {
    absl::StrAppend(&note, "  version ", worker.version(), ", ", FormatBytes(worker.sent_bytes()), " of ",
                    FormatBytes(worker.selected_bytes()), ChangesOf(worker), "  ",
                    FormatRate(worker.sent_bytes(), Seconds(worker)), "  ", FormatDuration(Seconds(worker)));
  }
  if (worker.has_foreign_version()) {
    absl::StrAppend(&note, "  uses version ", worker.foreign_version(), " of another run");
  } else if (worker.has_installed_version() && worker.installed_version() != worker.version()) {
    absl::StrAppend(&note, "  uses version ", worker.installed_version());
  }
  const bool broken = worker.state() == v1::WORKER_STATE_FAILED || worker.state() == v1::WORKER_STATE_TORN;
  if (broken && !worker.last_error().empty()) absl::StrAppend(&note, "  ", Printable(worker.last_error()));
  return note;
}

Bar WorkerBar(const v1::Worker& worker) {
  // A worker that only watches has pulled nothing: its bar is empty, not full.
  const uint64_t total = HasPulled(worker) ? worker.selected_bytes() : 1;
  return {Printable(ShownName(worker)), worker.sent_bytes(), total, WorkerNote(worker)};
}

}  // namespace

absl::StatusOr<FleetState> LookAtFleet(Inspector& inspector, const std::string& model) {
  absl::StatusOr<v1::ListVersionsResponse> versions = inspector.Versions(model);
  if (!versions.ok()) return versions.status();
  // Workers are listed after versions, so that a worker that pulls the newest version is not missed.
  absl::StatusOr<v1::ListWorkersResponse> workers = inspector.Workers(model);
  if (!workers.ok()) return workers.status();
  FleetState state{std::move(*versions->mutable_versions()), {}};
  for (v1::Worker& worker : *workers->mutable_workers()) {
    if (!worker.has_relay()) *state.workers.Add() = std::move(worker);  // a relay installs nothing
  }
  return state;
}

std::vector<std::string> FleetBars(const FleetState& state, size_t width) {
  std::vector<Bar> bars;
  for (const v1::VersionSummary& version : state.versions) {
    if (IsShown(version)) bars.push_back(VersionBar(version));
  }
  if (bars.size() > kVersionsShown) bars.erase(bars.begin(), bars.end() - kVersionsShown);
  for (const v1::Worker& worker : state.workers) bars.push_back(WorkerBar(worker));
  size_t label_width = 0;
  for (const Bar& bar : bars) label_width = std::max(label_width, DisplayWidth(bar.label));
  label_width = std::min(label_width, kWidestLabel);

  std::vector<std::string> lines;
  lines.reserve(bars.size() + 1);
  for (const Bar& bar : bars) lines.push_back(RenderBar(bar, label_width, width));
  if (lines.empty()) lines.emplace_back("no versions and no workers yet");
  return lines;
}

bool FleetNews::IsNews(const std::string& key, const std::string& state, uint64_t bytes) {
  const Clock::time_point now = Clock::now();
  const auto [told, first] = told_.try_emplace(key);
  Told& last = told->second;
  if (!first && last.state == state && (last.bytes == bytes || now - last.at < kNewsInterval)) return false;
  last = {state, bytes, now};
  return true;
}

std::optional<std::string> FleetNews::Line(const v1::VersionSummary& version) {
  const std::string key =
      absl::StrCat("version ", version.model(), " ", version.trainer_epoch(), " ", version.version());
  const std::string state = absl::StrCat(StateName(version.state()), " ", RanksText(version));
  if (!IsNews(key, state, version.converted_bytes())) return std::nullopt;
  return DescribeChange(version);
}

std::optional<std::string> FleetNews::Line(const v1::Worker& worker) {
  const std::string state = absl::StrCat(StateName(worker.state()), " ", worker.version(), " ", worker.connected());
  const std::string key = absl::StrCat("worker ", worker.name(), " ", worker.life());
  if (!IsNews(key, state, worker.sent_bytes())) return std::nullopt;
  return absl::StrCat("worker ", Printable(ShownName(worker)), " ", WorkerNote(worker));
}

std::vector<std::string> FleetNews::Lines(const FleetState& state) {
  std::vector<std::string> lines;
  const auto add = [&](std::optional<std::string> line) {
    if (line) lines.push_back(*std::move(line));
  };
  for (const v1::VersionSummary& version : state.versions) add(Line(version));
  for (const v1::Worker& worker : state.workers) add(Line(worker));
  return lines;
}

absl::StatusOr<bool> UntilCondition::Holds(const FleetState& state) {
  for (const v1::VersionSummary& version : state.versions) {
    if (version.version() != version_) continue;
    if (version.state() == v1::VERSION_STATE_ABORTED) {
      return absl::AbortedError(absl::StrCat("version ", version_, " was aborted: ", version.abort_reason()));
    }
    committed_ = version.state() != v1::VERSION_STATE_OPEN;
  }
  bool pulling = false;
  for (const v1::Worker& worker : state.workers) {
    if (worker.last_complete_version() == version_) completed_.insert({worker.name(), worker.life()});
    if (worker.version() != version_) continue;
    pulling |= worker.state() == v1::WORKER_STATE_PULLING;
    if (worker.state() == v1::WORKER_STATE_FAILED) {
      return absl::AbortedError(absl::StrCat("worker ", Printable(ShownName(worker)), " failed to pull version ",
                                             version_, ": ", worker.last_error()));
    }
  }
  return committed_ && !pulling && completed_.size() >= pulls_;
}

std::string UntilCondition::Missing() const {
  if (!committed_) return absl::StrCat("version ", version_, " is not committed");
  return absl::StrCat(FormatCount(completed_.size(), "worker"), " completed version ", version_);
}

}  // namespace refit::cli

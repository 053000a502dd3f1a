// `refit watch`: shows changes of versions, or of the whole fleet, as they happen.
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/commands/fleet.h"
#include "client/cli/options/options.h"
#include "client/cli/run/interrupt.h"
#include "client/cli/run/timer.h"
#include "client/cli/terminal/format.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/progress.h"
#include "client/cli/terminal/status_lines.h"
#include "common/net/version_summary.h"
#include "common/terminal/terminal.h"
#include "refit/inspector.h"
#include "refit/subscriber.h"

namespace refit::cli {
namespace {

constexpr std::chrono::milliseconds kLookInterval(200);

struct WatchFlags {
  CommonOptions common;
  bool fleet = false;
  std::optional<uint64_t> until;
  uint64_t pulls = 0;
  double timeout_seconds = 0;
};

// One watch: its options, its end, and what it keeps between polls.
class Watch {
 public:
  Watch(const WatchFlags& flags, Interrupt& interrupt) : flags_(flags), interrupt_(interrupt) {
    if (flags_.until) until_.emplace(*flags_.until, flags_.pulls);
  }

  absl::Status Run() {
    absl::Status status = flags_.fleet ? absl::OkStatus() : FollowVersions();
    if (status.ok() && !over_ && (flags_.fleet || until_)) status = LookUntilDone();
    return interrupt_.raised() ? absl::CancelledError("interrupted") : status;
  }

 private:
  std::chrono::duration<double> TimeLeft() const {
    if (flags_.timeout_seconds <= 0) return std::chrono::hours(24 * 365);
    const auto left = begin_ + std::chrono::duration<double>(flags_.timeout_seconds) - std::chrono::steady_clock::now();
    return std::max(std::chrono::duration<double>(0), std::chrono::duration<double>(left));
  }

  // The time is over. A plain watch ends well then; one that waits for a version fails.
  absl::Status TimeUp() {
    over_ = true;
    if (!until_) return absl::OkStatus();
    return absl::DeadlineExceededError(
        absl::StrCat(until_->Missing(), " after ", FormatDuration(flags_.timeout_seconds)));
  }

  void Print(const v1::VersionSummary& version) {
    if (flags_.common.json) {
      out_.Say(CompactJson(ToJson(version)));
    } else if (std::optional<std::string> line = news_.Line(version)) {
      out_.Say(*std::move(line));
    }
  }

  void Print(const FleetState& state) {
    if (flags_.common.json) {
      nlohmann::ordered_json json = {{"versions", nlohmann::ordered_json::array()},
                                     {"workers", nlohmann::ordered_json::array()}};
      for (const v1::VersionSummary& version : state.versions) json["versions"].push_back(ToJson(version));
      for (const v1::Worker& worker : state.workers) json["workers"].push_back(ToJson(worker));
      if (!news_.Lines(state).empty()) out_.Say(CompactJson(json));
    } else if (IsFancy(stdout)) {
      live_.Draw(FleetBars(state, static_cast<size_t>(std::max(Width(stdout) - 1, 20))));
    } else {
      for (std::string& line : news_.Lines(state)) out_.Say(std::move(line));
    }
  }

  // Prints a line for each change, until the awaited version is closed, or without end.
  absl::Status FollowVersions() {
    absl::StatusOr<std::unique_ptr<Subscriber>> subscriber = Subscriber::Connect(flags_.common.Channel(interrupt_));
    if (!subscriber.ok()) return subscriber.status();
    const auto stop = [&] { (*subscriber)->Cancel(); };
    const Timer timer(TimeLeft(), stop);
    interrupt_.SetReaction(stop);
    const absl::Status status =
        (*subscriber)->Watch({.model = flags_.common.model}, [&](const VersionSummary& version) {
          Print(ToProto(version));
          if (out_.reader_gone()) over_ = true;
          return !over_ && (version.version != flags_.until || version.state == VersionState::kOpen);
        });
    interrupt_.SetReaction(nullptr);
    return timer.expired() && !status.ok() ? TimeUp() : status;
  }

  // Polls a few times a second. Shows the fleet if asked for.
  absl::Status LookUntilDone() {
    absl::StatusOr<std::unique_ptr<Inspector>> inspector = Inspector::Connect(flags_.common.Channel(interrupt_));
    if (!inspector.ok()) return inspector.status();
    StopFlag stop;
    interrupt_.SetReaction([&] {
      stop.Stop();
      (*inspector)->Cancel();
    });
    const absl::Status status = LookAgainAndAgain(**inspector, stop);
    interrupt_.SetReaction(nullptr);
    return status;
  }

  absl::Status LookAgainAndAgain(Inspector& inspector, StopFlag& stop) {
    while (true) {
      absl::StatusOr<FleetState> state = LookAtFleet(inspector, flags_.common.model);
      if (!state.ok()) return state.status();
      if (flags_.fleet) Print(*state);
      if (out_.reader_gone()) return absl::OkStatus();
      if (until_) {
        const absl::StatusOr<bool> holds = until_->Holds(*state);
        if (!holds.ok()) return holds.status();
        if (*holds) return absl::OkStatus();
      }
      if (TimeLeft().count() <= 0) return TimeUp();
      if (stop.WaitFor(std::min<std::chrono::duration<double>>(kLookInterval, TimeLeft()))) return absl::OkStatus();
    }
  }

  const WatchFlags& flags_;
  Interrupt& interrupt_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::optional<UntilCondition> until_;
  FleetNews news_;
  LiveLines live_{stdout};
  StatusLines out_{stdout, flags_.common.json};
  bool over_ = false;
};

absl::Status RunWatch(const WatchFlags& flags) {
  Interrupt interrupt;
  return Watch(flags, interrupt).Run();
}

}  // namespace

void AddWatchCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<WatchFlags>();
  CLI::App* command =
      AddCommand(app, invocation, "watch", "Follow versions, or the whole fleet, as things happen",
                 "A line for each change; with --fleet, on a terminal, a bar for each version and each worker. "
                 "With --json a JSON object a line. Ends with Ctrl-C, --until or --timeout.\n\n"
                 "Examples:\n"
                 "  refit watch\n"
                 "  refit watch --fleet\n"
                 "  refit watch --until 8 --pulls 2 --timeout 600  # fail unless two workers have it\n",
                 [flags] { return RunWatch(*flags); });
  command->add_flag("--fleet", flags->fleet, "Workers too; a live view on a terminal");
  CLI::Option* until =
      command
          ->add_option("--until", flags->until,
                       "End when version N is committed and no worker pulls it any more; fail if it was aborted or a "
                       "worker failed to pull it")
          ->check(AtLeast(1))
          ->type_name("N");
  command->add_option("--pulls", flags->pulls, "... and at least K workers have it whole")
      ->type_name("K")
      ->needs(until);
  command->add_option("--timeout", flags->timeout_seconds, "End after so long; fail if --until does not hold by then")
      ->check(Seconds())
      ->type_name("SECONDS");
  AddModelOption(command, flags->common);
  AddServersOptions(command, flags->common);
}

}  // namespace refit::cli

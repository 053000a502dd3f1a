// `refit await` and `refit release`: waits for workers, and releases a version, from the command line.
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/options/options.h"
#include "client/cli/run/run_connected.h"
#include "client/cli/terminal/format.h"
#include "client/cli/terminal/json.h"
#include "common/net/version_summary.h"
#include "refit/publisher.h"

namespace refit::cli {
namespace {

struct AwaitFlags {
  CommonOptions common;
  uint64_t version = 0;
  uint32_t workers = 1;
  bool all = false;
  bool staged = false;
  double timeout_seconds = 60;
  std::optional<uint64_t> epoch;
};

absl::Status Await(const AwaitFlags& flags, Publisher& publisher) {
  Publisher::Await await;
  await.model = flags.common.model;
  await.version = flags.version;
  await.phase = flags.staged ? Publisher::Await::Phase::kStaged : Publisher::Await::Phase::kInstalled;
  await.workers = flags.workers;
  await.all = flags.all;
  await.timeout = std::chrono::milliseconds(static_cast<int64_t>(flags.timeout_seconds * 1000));
  await.trainer_epoch = flags.epoch;
  std::vector<std::string> gone;
  const absl::StatusOr<uint32_t> workers = publisher.AwaitWorkers(await, &gone);
  if (!workers.ok()) return workers.status();
  if (flags.common.json) {
    PrintJson({{"version", flags.version}, {"workers", *workers}, {"gone", gone}});
  } else if (!flags.common.quiet) {
    std::printf("%s %s version %s%s%s\n", FormatCount(*workers, "worker").c_str(),
                flags.staged ? "staged" : "installed", absl::StrCat(flags.version).c_str(),
                gone.empty() ? "" : "; gone, and not counted: ", absl::StrJoin(gone, ", ").c_str());
  }
  return absl::OkStatus();
}

absl::Status RunAwait(const AwaitFlags& flags) {
  return RunConnected<Publisher>(flags.common, kNothingChanged,
                                 [&](Publisher& publisher) { return Await(flags, publisher); });
}

struct ReleaseFlags {
  CommonOptions common;
  uint64_t version = 0;
};

absl::Status Release(const ReleaseFlags& flags, Publisher& publisher) {
  const absl::StatusOr<VersionSummary> version = publisher.ReleaseInstalls(flags.common.model, flags.version);
  if (!version.ok()) return version.status();
  if (flags.common.json) {
    PrintJson(ToJson(ToProto(*version)));
  } else if (!flags.common.quiet) {
    std::printf("Workers may install version %s\n", absl::StrCat(flags.version).c_str());
  }
  return absl::OkStatus();
}

absl::Status RunRelease(const ReleaseFlags& flags) {
  return RunConnected<Publisher>(flags.common, "`refit versions` says whether the version holds installs",
                                 [&](Publisher& publisher) { return Release(flags, publisher); });
}

}  // namespace

void AddAwaitCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<AwaitFlags>();
  CLI::App* command = AddCommand(app, invocation, "await", "Wait until workers have installed a version",
                                 "A later version of the same run counts as well; a worker that is not connected does "
                                 "not. Names the workers "
                                 "that are behind, and why, if the time is over.\n\n"
                                 "Examples:\n"
                                 "  refit await 7 --workers 8\n"
                                 "  refit await 7 --all --staged --timeout 120 && refit release 7\n",
                                 [flags] { return RunAwait(*flags); });
  command->add_option("VERSION", flags->version, "Number of the version")->required()->check(AtLeast(1))->type_name("");
  command->add_option("--workers", flags->workers, "At least so many workers")
      ->check(AtLeast(1))
      ->type_name("K")
      ->capture_default_str();
  command->add_flag("--all", flags->all, "And all workers that are connected");
  command->add_flag("--staged", flags->staged, "It is enough that they have it staged");
  command->add_option("--epoch", flags->epoch, "The trainer's run that the version is of (default: the last one)")
      ->check(AtLeast(0))
      ->type_name("N");
  command->add_option("--timeout", flags->timeout_seconds, "How long to wait")
      ->check(Seconds())
      ->type_name("SECONDS")
      ->capture_default_str();
  AddModelOption(command, flags->common);
  AddServerOptions(command, flags->common);
}

void AddReleaseCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<ReleaseFlags>();
  CLI::App* command = AddCommand(app, invocation, "release", "Let workers install a version that holds installs",
                                 "Of a version pushed with --hold-installs: workers have staged it, and now switch "
                                 "together.\n\n"
                                 "Examples:\n"
                                 "  refit release 7\n",
                                 [flags] { return RunRelease(*flags); });
  command->add_option("VERSION", flags->version, "Number of the version")->required()->check(AtLeast(1))->type_name("");
  AddModelOption(command, flags->common);
  AddServerOptions(command, flags->common);
}

}  // namespace refit::cli

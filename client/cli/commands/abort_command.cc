// `refit abort`: aborts an open version that another process pushes.
#include <cstdio>
#include <memory>
#include <string>

#include "client/cli/options/options.h"
#include "client/cli/run/run_connected.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/listing.h"
#include "common/net/version_summary.h"
#include "refit/publisher.h"

namespace refit::cli {
namespace {

struct AbortFlags {
  CommonOptions common;
  uint64_t version = 0;
  std::string reason;
};

absl::Status Abort(const AbortFlags& flags, Publisher& publisher) {
  absl::StatusOr<VersionSummary> version = publisher.Abort(flags.common.model, flags.version, flags.reason);
  if (!version.ok()) return version.status();
  if (flags.common.json) {
    PrintJson(ToJson(ToProto(*version)));
  } else if (!flags.common.quiet) {
    std::printf("%s\n", DescribeChange(ToProto(*version)).c_str());
  }
  return absl::OkStatus();
}

absl::Status RunAbort(const AbortFlags& flags) {
  return RunConnected<Publisher>(flags.common, "`refit versions` says whether the version is aborted",
                                 [&](Publisher& publisher) { return Abort(flags, publisher); });
}

}  // namespace

void AddAbortCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<AbortFlags>();
  CLI::App* command = AddCommand(app, invocation, "abort", "Abort an open version; its push and its pulls end",
                                 "Examples:\n"
                                 "  refit abort 7 --reason 'trainer is stuck'\n",
                                 [flags] { return RunAbort(*flags); });
  command->add_option("VERSION", flags->version, "Number of the version")->required()->check(AtLeast(1))->type_name("");
  command->add_option("--reason", flags->reason, "Why; workers and the trainer are told")
      ->required()
      ->type_name("TEXT");
  AddModelOption(command, flags->common);
  AddServerOptions(command, flags->common);
}

}  // namespace refit::cli

// `refit versions`: lists the versions that the service holds, and those that it remembers.
#include <cstdio>
#include <memory>

#include "client/cli/options/options.h"
#include "client/cli/run/run_connected.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/listing.h"
#include "refit/inspector.h"

namespace refit::cli {
namespace {

absl::Status PrintVersions(const CommonOptions& common, Inspector& inspector) {
  absl::StatusOr<v1::ListVersionsResponse> versions = inspector.Versions(common.model);
  if (!versions.ok()) return versions.status();
  if (!common.model.empty() && versions->versions().empty()) return NoSuchModel(inspector, common.model);
  if (common.json) {
    PrintJson(ToJson(*versions));
  } else if (versions->versions().empty()) {
    std::printf("No versions yet\n");
  } else {
    VersionTable(versions->versions()).Print(stdout);
  }
  return absl::OkStatus();
}

absl::Status RunVersions(const CommonOptions& common) {
  return RunConnected<Inspector>(common, kNothingChanged,
                                 [&](Inspector& inspector) { return PrintVersions(common, inspector); });
}

}  // namespace

void AddVersionsCommand(CLI::App& app, Invocation& invocation) {
  const auto common = std::make_shared<CommonOptions>();
  CLI::App* command = AddCommand(app, invocation, "versions", "List versions: open, committed, retired, aborted",
                                 "Examples:\n"
                                 "  refit versions\n"
                                 "  refit versions --model policy --json\n",
                                 [common] { return RunVersions(*common); });
  AddModelFilter(command, *common);
  AddServerOptions(command, *common);
}

}  // namespace refit::cli

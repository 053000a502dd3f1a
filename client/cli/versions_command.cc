// `refit versions`: what the service holds, and what it remembers.
#include <cstdio>
#include <memory>

#include "client/cli/json.h"
#include "client/cli/listing.h"
#include "client/cli/options.h"
#include "client/inspector.h"

namespace refit::cli {
namespace {

absl::Status RunVersions(const CommonOptions& common) {
  absl::StatusOr<std::unique_ptr<Inspector>> inspector = Inspector::Connect(common.Channel());
  if (!inspector.ok()) return inspector.status();
  absl::StatusOr<v1::ListVersionsResponse> versions = (*inspector)->Versions(common.model);
  if (!versions.ok()) return versions.status();
  if (common.json) {
    PrintJson(ToJson(*versions));
  } else if (versions->versions().empty()) {
    std::printf("No versions yet\n");
  } else {
    VersionTable(versions->versions()).Print(stdout);
  }
  return absl::OkStatus();
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

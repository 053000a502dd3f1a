// `refit status`: shows the service, its versions and its workers.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/options/options.h"
#include "client/cli/run/run_connected.h"
#include "client/cli/terminal/fleet_tree.h"
#include "client/cli/terminal/format.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/listing.h"
#include "client/cli/terminal/table.h"
#include "refit/inspector.h"
#include "refit/tensor_spec.h"

namespace refit::cli {
namespace {

std::string SpoolText(const v1::SpoolInfo& spool) {
  std::string text = absl::StrCat(FormatCount(spool.versions(), "version"), ", ", FormatBytes(spool.bytes()), " in ",
                                  Printable(spool.folder()));
  if (spool.pending() > 0) {
    absl::StrAppend(&text, "; the newest of ", FormatCount(spool.pending(), "model"), " is not written yet");
  }
  if (!spool.last_error().empty()) absl::StrAppend(&text, "; failing: ", Printable(spool.last_error()));
  return text;
}

std::string RelayText(const v1::RelayStatus& relay) {
  std::string text = absl::StrCat("of ", Printable(relay.upstream()));
  if (relay.connected()) {
    absl::StrAppend(&text, ", connected", relay.depth() == 0 ? "" : absl::StrCat(", depth ", relay.depth()));
  } else {
    absl::StrAppend(&text, ", not connected, serves what it has: ", Printable(relay.error()));
  }
  absl::StrAppend(&text, "; ", FormatBytes(relay.received_bytes()), " from above, ", FormatBytes(relay.sent_bytes()),
                  " given below");
  if (!relay.missing().empty()) absl::StrAppend(&text, "; not here yet: ", Printable(relay.missing()));
  return text;
}

void PrintServer(const std::string& address, const v1::GetServerInfoResponse& info) {
  Facts facts;
  facts.Add("service", absl::StrCat(address, ", refit ", info.software_version(), ", up ",
                                    FormatDuration(static_cast<double>(info.uptime_seconds()))));
  if (!info.zone().empty()) facts.Add("zone", Printable(info.zone()));
  facts.Add("memory",
            absl::StrCat(FormatBytes(info.memory_reserved_bytes()), " of ", FormatBytes(info.memory_budget_bytes()),
                         " reserved by versions, ", FormatBytes(info.memory_pooled_bytes()), " kept warm, ",
                         FormatBytes(info.resident_bytes()), " resident"));
  if (info.has_relay()) facts.Add("relay", RelayText(info.relay()));
  if (info.has_spool()) facts.Add("spool", SpoolText(info.spool()));
  facts.Add("activity", absl::StrCat(info.open_pushes(), info.open_pushes() == 1 ? " open push, " : " open pushes, ",
                                     FormatCount(info.active_pulls(), "active pull")));
  facts.Add("limits",
            absl::StrCat(info.retain_versions(), " committed versions a model, ",
                         FormatCount(info.max_tensors_per_version(), "tensor"), " a version, chunks of ",
                         FormatBytes(info.chunk_bytes()), ", messages up to ", FormatBytes(info.max_message_bytes())));
  facts.Add("adapters", absl::StrJoin(info.adapters(), ", "));
  facts.Add("libraries", absl::StrJoin(info.libraries(), ", "));
  facts.Print(stdout);
}

void PrintSection(const char* title, const Table& table) {
  if (table.empty()) {
    std::printf("\nNo %s\n", title);
    return;
  }
  std::printf("\n");
  table.Print(stdout);
}

bool HasRelays(const v1::ListWorkersResponse& workers) {
  return std::any_of(workers.workers().begin(), workers.workers().end(),
                     [](const v1::Worker& worker) { return worker.has_relay(); });
}

absl::Status PrintStatus(const CommonOptions& common, bool tree, Inspector& inspector) {
  absl::StatusOr<v1::GetServerInfoResponse> info = inspector.ServerInfo();
  if (!info.ok()) return info.status();
  absl::StatusOr<v1::ListVersionsResponse> versions = inspector.Versions(common.model);
  if (!versions.ok()) return versions.status();
  absl::StatusOr<v1::ListWorkersResponse> workers = inspector.Workers(common.model);
  if (!workers.ok()) return workers.status();
  const bool is_unknown = versions->versions().empty() && workers->workers().empty();
  if (!common.model.empty() && is_unknown) return NoSuchModel(inspector, common.model);
  if (common.json) {
    nlohmann::ordered_json json = {{"server", ToJson(*info)}};
    json.update(ToJson(*versions));
    json.update(ToJson(*workers));
    PrintJson(json);
    return absl::OkStatus();
  }
  if (tree) {
    FleetTree(common.server, *workers, *versions).Print(stdout);
    return absl::OkStatus();
  }
  PrintServer(common.server, *info);
  PrintSection("versions yet", VersionTable(versions->versions()));
  PrintSection("workers yet", WorkerTable(workers->workers(), versions->versions()));
  if (HasRelays(*workers)) std::printf("\nThere are relays: refit status --tree\n");
  return absl::OkStatus();
}

absl::Status RunStatus(const CommonOptions& common, bool tree) {
  return RunConnected<Inspector>(common, kNothingChanged,
                                 [&](Inspector& inspector) { return PrintStatus(common, tree, inspector); });
}

}  // namespace

void AddStatusCommand(CLI::App& app, Invocation& invocation) {
  const auto common = std::make_shared<CommonOptions>();
  const auto tree = std::make_shared<bool>(false);
  CLI::App* command = AddCommand(app, invocation, "status", "Show the service, its versions and its workers",
                                 "Examples:\n"
                                 "  refit status\n"
                                 "  refit status --tree\n"
                                 "  refit status --json | jq '.workers[] | {name, state, sent_bytes}'\n",
                                 [common, tree] { return RunStatus(*common, *tree); });
  command->add_flag("--tree", *tree,
                    "Only the fleet: relays, the workers below each, their versions, bytes from above and given below");
  AddModelFilter(command, *common);
  AddServerOptions(command, *common);
}

}  // namespace refit::cli

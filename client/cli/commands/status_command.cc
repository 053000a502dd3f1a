// `refit status`: shows the service, its versions and its workers.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/options/options.h"
#include "client/cli/run/run_connected.h"
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

void PrintServer(const std::string& address, const v1::GetServerInfoResponse& info) {
  Facts facts;
  facts.Add("service", absl::StrCat(address, ", refit ", info.software_version(), ", up ",
                                    FormatDuration(static_cast<double>(info.uptime_seconds()))));
  if (!info.zone().empty()) facts.Add("zone", Printable(info.zone()));
  facts.Add("memory",
            absl::StrCat(FormatBytes(info.memory_reserved_bytes()), " of ", FormatBytes(info.memory_budget_bytes()),
                         " reserved by versions, ", FormatBytes(info.memory_pooled_bytes()), " kept warm, ",
                         FormatBytes(info.resident_bytes()), " resident"));
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

absl::Status PrintStatus(const CommonOptions& common, Inspector& inspector) {
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
  PrintServer(common.server, *info);
  PrintSection("versions yet", VersionTable(versions->versions()));
  PrintSection("workers yet", WorkerTable(workers->workers(), versions->versions()));
  return absl::OkStatus();
}

absl::Status RunStatus(const CommonOptions& common) {
  return RunConnected<Inspector>(common, kNothingChanged,
                                 [&](Inspector& inspector) { return PrintStatus(common, inspector); });
}

}  // namespace

void AddStatusCommand(CLI::App& app, Invocation& invocation) {
  const auto common = std::make_shared<CommonOptions>();
  CLI::App* command = AddCommand(app, invocation, "status", "Show the service, its versions and its workers",
                                 "Examples:\n"
                                 "  refit status\n"
                                 "  refit status --json | jq '.workers[] | {name, state, sent_bytes}'\n",
                                 [common] { return RunStatus(*common); });
  AddModelFilter(command, *common);
  AddServerOptions(command, *common);
}

}  // namespace refit::cli

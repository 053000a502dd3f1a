#include "client/cli/commands/push_report.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/terminal/format.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/table.h"
#include "common/net/version_summary.h"

namespace refit::cli {
namespace {

std::string RankText(const PushReport& report) {
  if (!report.rank.given()) return "";
  std::string text = absl::StrCat("\nPushed as ", WhatIsPushed(report));
  if (report.unsent_bytes > 0) {
    absl::StrAppend(&text, "; ", FormatBytes(report.unsent_bytes), " not sent, because another rank sends the same");
  }
  return text;
}

}  // namespace

void Measure(const ShardSource& source, const VersionPush& push, PushReport& report) {
  report.resident = true;
  for (size_t i = 0; i < source.shards().size(); ++i) {
    if (push.unneeded(i)) {
      ++report.excluded;
      continue;
    }
    ++report.native_tensors;
    const uint64_t bytes = source.shards()[i].ByteSize();
    report.shard_bytes += bytes;
    if (push.digest_only(i)) report.unsent_bytes += bytes;
    if (bytes == 0) continue;
    ++report.shards;
    report.resident = report.resident && source.is_resident(i);
  }
}

std::string WhatIsPushed(const PushReport& report) {
  return absl::StrCat(report.rank.given() ? absl::StrCat("rank ", report.rank.rank, " of ", report.rank.mesh.world,
                                                         ", ", FormatCount(report.shards, "shard"))
                                          : FormatCount(report.native_tensors, "native tensor"),
                      ", ", FormatBytes(report.shard_bytes),
                      report.excluded > 0 ? absl::StrCat(" (", report.excluded, " excluded)") : "");
}

void PrintReport(const PushReport& report) {
  Table table({{"phase"}, {"bytes", Align::kRight}, {"seconds", Align::kRight}, {"rate", Align::kRight}});
  const auto row = [&](const char* phase, uint64_t bytes, double seconds) {
    table.AddRow(
        {phase, bytes == 0 ? "-" : FormatBytes(bytes), absl::StrFormat("%.3f", seconds), FormatRate(bytes, seconds)});
  };
  if (!report.resident) row(report.synthetic ? "generate" : "cut", report.shard_bytes, report.read_seconds);
  row("push", report.shard_bytes, report.push_seconds);
  row("commit", 0, report.commit_seconds);
  row("total", report.shard_bytes, report.total_seconds);
  table.Print(stdout);
  const VersionSummary& version = report.version;
  const std::string text = absl::StrCat("Committed version ", version.version, " of model \"", version.model,
                                        "\": ", FormatCount(report.native_tensors, "native tensor"), " -> ",
                                        FormatCount(version.tensors, "HF tensor"), ", ", FormatBytes(version.bytes),
                                        " in ", FormatDuration(report.total_seconds), RankText(report));
  std::printf("%s\n", text.c_str());
}

nlohmann::ordered_json ReportJson(const PushReport& report) {
  nlohmann::ordered_json json = {{"version", ToJson(ToProto(report.version))},
                                 {"native_tensors", report.native_tensors},
                                 {"excluded_tensors", report.excluded},
                                 {"native_bytes", report.shard_bytes}};
  if (report.rank.given()) {
    json["rank"] = report.rank.rank;
    json["world"] = report.rank.mesh.world;
    json["shards"] = report.shards;
    json["digest_only_bytes"] = report.unsent_bytes;
  }
  json["seconds"] = {{"read", report.read_seconds},
                     {"push", report.push_seconds},
                     {"commit", report.commit_seconds},
                     {"total", report.total_seconds}};
  return json;
}

}  // namespace refit::cli

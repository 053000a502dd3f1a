#include "client/cli/commands/pull_report.h"

#include <chrono>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/commands/tensor_file.h"
#include "client/cli/commands/traffic.h"
#include "client/cli/terminal/format.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/table.h"
#include "common/net/version_summary.h"

namespace refit::cli {

void Print(const PullReport& report) {
  Table table({{"phase"}, {"bytes", Align::kRight}, {"seconds", Align::kRight}, {"rate", Align::kRight}});
  const PullResult& result = report.result;
  const auto row = [&](const char* phase, uint64_t bytes, double seconds) {
    table.AddRow({phase, FormatBytes(bytes), absl::StrFormat("%.3f", seconds), FormatRate(bytes, seconds)});
  };
  if (report.base_bytes > 0) row("base", report.base_bytes, report.base_seconds);
  row("wire", result.traffic.wire_bytes, report.wire_seconds);
  if (report.verified) row("verify", result.bytes, report.verify_seconds);
  if (!report.out.empty()) row("write", result.bytes, report.write_seconds);
  row("total", result.bytes, report.total_seconds);
  std::FILE* const stream = ReportStream(report.out);
  table.Print(stream);
  const VersionSummary& version = result.version;
  std::string text = absl::StrCat("Pulled version ", version.version, " of model \"", version.model, "\": ");
  if (result.tensors != version.tensors) absl::StrAppend(&text, result.tensors, " of ");
  absl::StrAppend(&text, FormatCount(version.tensors, "tensor"), ", ");
  if (report.part.given()) absl::StrAppend(&text, report.part.ToString(), ", ");
  absl::StrAppend(&text, FormatBytes(result.bytes), " in ", FormatDuration(report.total_seconds));
  if (const std::string route = RouteText(report.server, result.address, result.moved); !route.empty())
    absl::StrAppend(&text, " ", route);
  if (const std::string changes = ChangesText(result.traffic); !changes.empty()) absl::StrAppend(&text, ", ", changes);
  absl::StrAppend(&text, ", digests match");
  if (report.verified) absl::StrAppend(&text, ", bit for bit as LibTorch converts the native tensors");
  if (!report.out.empty()) absl::StrAppend(&text, ", written to ", report.out);
  if (const std::string refusal = RefusalText(result.traffic); !refusal.empty()) absl::StrAppend(&text, "; ", refusal);
  std::fprintf(stream, "%s\n", text.c_str());
}

nlohmann::ordered_json ToJson(const PullReport& report) {
  nlohmann::ordered_json json = {{"version", ToJson(ToProto(report.result.version))},
                                 {"tensors", report.result.tensors},
                                 {"bytes", report.result.bytes},
                                 {"streams", report.result.streams}};
  json.update(ToJson(report.result.traffic));
  json["address"] = report.result.address;
  json["moved"] = report.result.moved;
  json["verified"] = report.verified;
  json["seconds"] = {{"base", report.base_seconds},
                     {"wire", report.wire_seconds},
                     {"waited", std::chrono::duration<double>(report.result.waited).count()},
                     {"verify", report.verify_seconds},
                     {"write", report.write_seconds},
                     {"total", report.total_seconds}};
  if (!report.out.empty()) json["out"] = report.out;
  if (report.part.ep_size > 0) {
    json["ep_rank"] = report.part.ep_rank;
    json["ep_size"] = report.part.ep_size;
  }
  if (report.part.tp_size > 0) {
    json["tp_rank"] = report.part.tp_rank;
    json["tp_size"] = report.part.tp_size;
  }
  return json;
}

}  // namespace refit::cli

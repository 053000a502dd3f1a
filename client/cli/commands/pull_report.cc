#include "client/cli/commands/pull_report.h"

#include <chrono>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/commands/tensor_file.h"
#include "client/cli/terminal/format.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/table.h"
#include "common/net/version_summary.h"

namespace refit::cli {

void Print(const PullReport& report) {
  Table table({{"phase"}, {"bytes", Align::kRight}, {"seconds", Align::kRight}, {"rate", Align::kRight}});
  const auto row = [&](const char* phase, double seconds) {
    table.AddRow({phase, FormatBytes(report.result.bytes), absl::StrFormat("%.3f", seconds),
                  FormatRate(report.result.bytes, seconds)});
  };
  row("wire", report.wire_seconds);
  if (report.verified) row("verify", report.verify_seconds);
  if (!report.out.empty()) row("write", report.write_seconds);
  row("total", report.total_seconds);
  std::FILE* const stream = ReportStream(report.out);
  table.Print(stream);
  const VersionSummary& version = report.result.version;
  std::string text = absl::StrCat("Pulled version ", version.version, " of model \"", version.model, "\": ");
  if (report.result.tensors != version.tensors) absl::StrAppend(&text, report.result.tensors, " of ");
  absl::StrAppend(&text, FormatCount(version.tensors, "tensor"), ", ");
  if (report.part.given()) absl::StrAppend(&text, report.part.ToString(), ", ");
  absl::StrAppend(&text, FormatBytes(report.result.bytes), " in ", FormatDuration(report.total_seconds),
                  ", digests match");
  if (report.verified) absl::StrAppend(&text, ", bit for bit as LibTorch converts the native tensors");
  if (!report.out.empty()) absl::StrAppend(&text, ", written to ", report.out);
  std::fprintf(stream, "%s\n", text.c_str());
}

nlohmann::ordered_json ToJson(const PullReport& report) {
  nlohmann::ordered_json json = {{"version", ToJson(ToProto(report.result.version))},
                                 {"tensors", report.result.tensors},
                                 {"bytes", report.result.bytes},
                                 {"verified", report.verified},
                                 {"seconds",
                                  {{"wire", report.wire_seconds},
                                   {"waited", std::chrono::duration<double>(report.result.waited).count()},
                                   {"verify", report.verify_seconds},
                                   {"write", report.write_seconds},
                                   {"total", report.total_seconds}}}};
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

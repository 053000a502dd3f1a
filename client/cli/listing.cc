#include "client/cli/listing.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "client/cli/format.h"
#include "common/tensor/tensor_spec.h"

namespace refit::cli {

std::string StateName(v1::VersionState state) {
  switch (state) {
    case v1::VERSION_STATE_OPEN:
      return "open";
    case v1::VERSION_STATE_COMMITTED:
      return "committed";
    case v1::VERSION_STATE_RETIRED:
      return "retired";
    case v1::VERSION_STATE_ABORTED:
      return "aborted";
    default:
      return absl::StrCat("state ", static_cast<int>(state));
  }
}

std::string StateName(v1::WorkerState state) {
  switch (state) {
    case v1::WORKER_STATE_WATCHING:
      return "watching";
    case v1::WORKER_STATE_PULLING:
      return "pulling";
    case v1::WORKER_STATE_COMPLETE:
      return "complete";
    case v1::WORKER_STATE_FAILED:
      return "failed";
    default:
      return absl::StrCat("state ", static_cast<int>(state));
  }
}

double Seconds(const v1::VersionSummary& version) {
  return SecondsBetween(version.opened_at_ns(), version.closed_at_ns());
}

double Seconds(const v1::Worker& worker) { return SecondsBetween(worker.started_at_ns(), worker.ended_at_ns()); }

std::string RanksText(const v1::VersionSummary& version) {
  if (version.world() <= 1) return "";
  const bool over = version.state() == v1::VERSION_STATE_COMMITTED || version.state() == v1::VERSION_STATE_RETIRED;
  if (over) return absl::StrCat(version.world());
  return version.committed_ranks() > 0 ? absl::StrCat(version.committed_ranks(), "/", version.world(), " committed")
                                       : absl::StrCat(version.joined_ranks(), "/", version.world(), " joined");
}

Table VersionTable(const google::protobuf::RepeatedPtrField<v1::VersionSummary>& versions) {
  Table table({{"model"},
               {"version", Align::kRight},
               {"state"},
               {"ranks"},
               {"tensors", Align::kRight},
               {"bytes", Align::kRight},
               {"took", Align::kRight},
               {"rate", Align::kRight},
               {"opened"},
               {"note"}});
  for (const v1::VersionSummary& version : versions) {
    table.AddRow({Printable(version.model()), absl::StrCat(version.version()), StateName(version.state()),
                  RanksText(version), absl::StrCat(version.tensors()),
                  FormatPart(version.converted_bytes(), version.bytes()), FormatDuration(Seconds(version)),
                  FormatRate(version.converted_bytes(), Seconds(version)), FormatShortTime(version.opened_at_ns()),
                  version.spooled() ? "on disk" : Printable(version.abort_reason())});
  }
  return table;
}

Table WorkerTable(const google::protobuf::RepeatedPtrField<v1::Worker>& workers) {
  Table table({{"worker"},
               {"state"},
               {"model"},
               {"version", Align::kRight},
               {"sent", Align::kRight},
               {"took", Align::kRight},
               {"rate", Align::kRight},
               {"waited", Align::kRight},
               {"note"}});
  for (const v1::Worker& worker : workers) {
    const bool pulled = worker.started_at_ns() != 0;
    const auto if_pulled = [&](const std::string& text) { return pulled ? text : "-"; };
    table.AddRow(
        {Printable(worker.name()), StateName(worker.state()), Printable(worker.model()),
         if_pulled(absl::StrCat(worker.version())), if_pulled(FormatPart(worker.sent_bytes(), worker.selected_bytes())),
         if_pulled(FormatDuration(Seconds(worker))), FormatRate(worker.sent_bytes(), Seconds(worker)),
         if_pulled(FormatDuration(static_cast<double>(worker.waited_ns()) / 1e9)), Printable(worker.last_error())});
  }
  return table;
}

std::string DescribeChange(const v1::VersionSummary& version) {
  const std::string ranks = RanksText(version);
  const std::string head = absl::StrCat("version ", version.version(), " ", StateName(version.state()), ": ",
                                        FormatCount(version.tensors(), "tensor"), ", ",
                                        ranks.empty() ? "" : absl::StrCat("ranks ", ranks, ", "));
  switch (version.state()) {
    case v1::VERSION_STATE_OPEN:
      return absl::StrCat(head, FormatBytes(version.converted_bytes()), " of ", FormatBytes(version.bytes()),
                          " converted after ", FormatDuration(Seconds(version)));
    case v1::VERSION_STATE_ABORTED:
      return absl::StrCat(head, FormatBytes(version.converted_bytes()), " of ", FormatBytes(version.bytes()),
                          " converted after ", FormatDuration(Seconds(version)), ": ",
                          Printable(version.abort_reason()));
    default:
      return absl::StrCat(head, FormatBytes(version.bytes()), " in ", FormatDuration(Seconds(version)), " (",
                          FormatRate(version.bytes(), Seconds(version)), ")");
  }
}

}  // namespace refit::cli

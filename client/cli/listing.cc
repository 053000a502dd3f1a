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

Table VersionTable(const google::protobuf::RepeatedPtrField<v1::VersionSummary>& versions) {
  Table table({{"model"},
               {"version", Align::kRight},
               {"state"},
               {"tensors", Align::kRight},
               {"bytes", Align::kRight},
               {"converted", Align::kRight},
               {"took", Align::kRight},
               {"rate", Align::kRight},
               {"opened"},
               {"note"}});
  for (const v1::VersionSummary& version : versions) {
    table.AddRow({Printable(version.model()), absl::StrCat(version.version()), StateName(version.state()),
                  absl::StrCat(version.tensors()), FormatBytes(version.bytes()),
                  FormatPercent(version.converted_bytes(), version.bytes()), FormatDuration(Seconds(version)),
                  FormatRate(version.converted_bytes(), Seconds(version)), FormatTime(version.opened_at_ns()),
                  Printable(version.abort_reason())});
  }
  return table;
}

Table WorkerTable(const google::protobuf::RepeatedPtrField<v1::Worker>& workers) {
  Table table({{"worker"},
               {"state"},
               {"model"},
               {"version", Align::kRight},
               {"sent", Align::kRight},
               {"of", Align::kRight},
               {"took", Align::kRight},
               {"rate", Align::kRight},
               {"waited", Align::kRight},
               {"note"}});
  for (const v1::Worker& worker : workers) {
    const bool pulled = worker.started_at_ns() != 0;
    table.AddRow({Printable(worker.name()), StateName(worker.state()), Printable(worker.model()),
                  pulled ? absl::StrCat(worker.version()) : "-", pulled ? FormatBytes(worker.sent_bytes()) : "-",
                  pulled ? FormatBytes(worker.selected_bytes()) : "-", pulled ? FormatDuration(Seconds(worker)) : "-",
                  FormatRate(worker.sent_bytes(), Seconds(worker)),
                  pulled ? FormatDuration(static_cast<double>(worker.waited_ns()) / 1e9) : "-",
                  Printable(worker.last_error())});
  }
  return table;
}

std::string DescribeChange(const v1::VersionSummary& version) {
  const std::string head = absl::StrCat("version ", version.version(), " ", StateName(version.state()), ": ",
                                        FormatCount(version.tensors(), "tensor"), ", ");
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

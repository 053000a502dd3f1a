#include "client/cli/terminal/listing.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/terminal/format.h"
#include "common/net/states.h"
#include "common/net/version_key.h"
#include "refit/tensor_spec.h"

namespace refit::cli {

namespace {

// The time that the service measured. Older services did not measure it: for these, the difference of their clock
// times.
double Seconds(uint64_t measured_ns, int64_t begin_ns, int64_t end_ns) {
  if (measured_ns != 0) return static_cast<double>(measured_ns) / 1e9;
  return end_ns == 0 ? 0 : static_cast<double>(end_ns - begin_ns) / 1e9;
}

}  // namespace

double Seconds(const v1::VersionSummary& version) {
  return Seconds(version.elapsed_ns(), version.opened_at_ns(), version.closed_at_ns());
}

double Seconds(const v1::Worker& worker) {
  return Seconds(worker.pull_ns(), worker.started_at_ns(), worker.ended_at_ns());
}

std::string RanksText(const v1::VersionSummary& version) {
  if (version.world() <= 1) return "";
  if (WasCommitted(version.state())) return absl::StrCat(version.world());
  return version.committed_ranks() > 0 ? absl::StrCat(version.committed_ranks(), "/", version.world(), " committed")
                                       : absl::StrCat(version.joined_ranks(), "/", version.world(), " joined");
}

namespace {

std::string Took(uint64_t ns) { return ns == 0 ? "-" : FormatDuration(static_cast<double>(ns) / 1e9); }

std::string NoteOf(const v1::VersionSummary& version) {
  if (version.installs_held()) return "holds installs";
  return version.spooled() ? "on disk" : Printable(version.abort_reason());
}

}  // namespace

Table VersionTable(const google::protobuf::RepeatedPtrField<v1::VersionSummary>& versions) {
  Table table({{"model"},
               {"version", Align::kRight},
               {"epoch", Align::kRight},
               {"state"},
               {"ranks"},
               {"tensors", Align::kRight},
               {"bytes", Align::kRight},
               {"took", Align::kRight, Need::kIfWide},
               {"rate", Align::kRight, Need::kIfWide},
               {"open", Align::kRight, Need::kIfWide},
               {"receive", Align::kRight, Need::kIfWide},
               {"convert", Align::kRight, Need::kIfWide},
               {"opened", Align::kLeft, Need::kIfWide},
               {"note"}});
  for (const v1::VersionSummary& version : versions) {
    table.AddRow({Printable(version.model()), absl::StrCat(version.version()),
                  version.trainer_epoch() == 0 ? "" : absl::StrCat(version.trainer_epoch()), StateName(version.state()),
                  RanksText(version), absl::StrCat(version.tensors()),
                  FormatPart(version.converted_bytes(), version.bytes()), FormatDuration(Seconds(version)),
                  FormatRate(version.converted_bytes(), Seconds(version)), Took(version.open_ns()),
                  Took(version.receive_ns()), Took(version.convert_ns()), FormatShortTime(version.opened_at_ns()),
                  NoteOf(version)});
  }
  return table;
}

namespace {

VersionKey InstalledBy(const v1::Worker& worker) { return {worker.installed_epoch(), worker.installed_version()}; }

std::string InUse(const v1::Worker& worker) {
  if (worker.has_foreign_version()) return absl::StrCat(worker.foreign_version(), " of another run");
  if (!worker.has_installed_version()) return "-";
  const VersionKey key = InstalledBy(worker);
  return absl::StrCat(key.number, key.epoch == 0 ? "" : absl::StrCat(" of epoch ", key.epoch));
}

std::string NoteOf(const v1::Worker& worker) {
  if (!worker.last_error().empty() || !worker.has_foreign_version()) return Printable(worker.last_error());
  return "this service never had that version; see follow --accept-new-run, push --epoch";
}

// What was sent of it as changes of a base. Empty if whole tensors were sent.
std::string OnTheWire(const v1::Worker& worker) {
  if (!worker.has_base_version()) return "";
  return absl::StrCat(FormatBytes(worker.wire_bytes()), " since ", worker.base_version());
}

// How many committed versions are newer than the one that the worker uses. "-" if it does not report that.
std::string Behind(const v1::Worker& worker, const google::protobuf::RepeatedPtrField<v1::VersionSummary>& versions) {
  if (!worker.has_installed_version()) return "-";
  size_t newer = 0;
  for (const v1::VersionSummary& version : versions) {
    if (version.model() == worker.model() && WasCommitted(version.state()) && InstalledBy(worker) < KeyOf(version)) {
      ++newer;
    }
  }
  return newer == 0 ? "0" : absl::StrCat(newer, newer == 1 ? " version" : " versions");
}

}  // namespace

Table WorkerTable(const google::protobuf::RepeatedPtrField<v1::Worker>& workers,
                  const google::protobuf::RepeatedPtrField<v1::VersionSummary>& versions) {
  Table table({{"worker"},
               {"state"},
               {"via"},
               {"model"},
               {"version", Align::kRight, Need::kIfWide},
               {"in use", Align::kRight},
               {"behind", Align::kRight},
               {"sent", Align::kRight, Need::kIfWide},
               {"on the wire", Align::kRight, Need::kIfWide},
               {"took", Align::kRight, Need::kIfWide},
               {"rate", Align::kRight, Need::kIfWide},
               {"waited", Align::kRight, Need::kIfWide},
               {"stage", Align::kRight, Need::kIfWide},
               {"install", Align::kRight, Need::kIfWide},
               {"note"}});
  for (const v1::Worker& worker : workers) {
    if (worker.has_relay()) continue;
    const bool pulled = worker.started_at_ns() != 0;
    const auto if_pulled = [&](const std::string& text) { return pulled ? text : "-"; };
    table.AddRow({Printable(ShownName(worker)),
                  absl::StrCat(StateName(worker.state()), worker.connected() ? "" : ", gone"),
                  Printable(absl::StrJoin(worker.via(), " > ")), Printable(worker.model()),
                  if_pulled(absl::StrCat(worker.version())), InUse(worker), Behind(worker, versions),
                  if_pulled(FormatPart(worker.sent_bytes(), worker.selected_bytes())), OnTheWire(worker),
                  if_pulled(FormatDuration(Seconds(worker))), FormatRate(worker.sent_bytes(), Seconds(worker)),
                  if_pulled(FormatDuration(static_cast<double>(worker.waited_ns()) / 1e9)), Took(worker.stage_ns()),
                  Took(worker.install_ns()), NoteOf(worker)});
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

absl::Status NoSuchModel(Inspector& inspector, const std::string& model) {
  constexpr size_t kNamed = 8;
  const absl::StatusOr<v1::ListVersionsResponse> all = inspector.Versions();
  if (!all.ok()) return all.status();
  std::set<std::string> names;
  for (const v1::VersionSummary& version : all->versions()) names.insert(Printable(version.model()));
  std::string known = absl::StrJoin(names.begin(), std::next(names.begin(), std::min(names.size(), kNamed)), ", ");
  if (names.size() > kNamed) absl::StrAppend(&known, ", ...");
  return absl::NotFoundError(absl::StrCat("no version of a model named '", Printable(model), "' was ever pushed here; ",
                                          names.empty() ? "nor of any other" : "known are ", known));
}

}  // namespace refit::cli

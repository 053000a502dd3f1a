#include "server/watch/metrics.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/net/states.h"
#include "refit/tensor_spec.h"
#include "refit/version.h"
#include "server/process/process_info.h"
#include "server/watch/metric_families.h"

namespace refit {
namespace {

using Labels = MetricFamilies::Labels;

double Seconds(uint64_t ns) { return static_cast<double>(ns) / 1e9; }
double Number(uint64_t value) { return static_cast<double>(value); }

void AddCounts(const MetricFamilies::Family& family, const std::string& label,
               const std::map<std::string, uint64_t>& counts) {
  for (const auto& [value, count] : counts) family.Add(Number(count), {{label, value}});
}

void AddProcess(const Observed& observed, MetricFamilies& out) {
  out.Gauge("refit_build_info", "1; the label says which version of the software runs.")
      .Add(1, {{"version", SoftwareVersion()}});
  out.Gauge("process_start_time_seconds", "Start of the service, seconds since the Unix epoch.")
      .Add(Seconds(observed.started_at_ns));
  out.Counter("process_cpu_seconds_total", "User and system CPU time.").Add(CpuSeconds());
  out.Gauge("process_resident_memory_bytes", "Resident memory.").Add(Number(ResidentBytes()));
  out.Gauge("process_open_fds", "Open file descriptors; each connection takes one.").Add(Number(OpenDescriptors()));
  out.Gauge("process_threads", "Threads of the process.").Add(Number(ThreadsOfProcess()));
  out.Gauge("process_max_fds", "Descriptors that may be open.").Add(Number(MaxDescriptors()));
  out.Counter("refit_log_lines_dropped_total", "Log lines that nobody took.")
      .Add(Number(observed.admission.log.dropped()));
}

void AddMemory(const Observed& observed, MetricFamilies& out) {
  out.Gauge("refit_memory_budget_bytes", "Memory that versions may take (--memory).")
      .Add(Number(observed.store.options().memory_budget_bytes));
  out.Gauge("refit_memory_reserved_bytes", "Memory that versions have reserved.")
      .Add(Number(observed.store.reserved_bytes()));
  out.Gauge("refit_memory_pooled_bytes", "Memory kept warm for the next version.")
      .Add(Number(observed.store.memory().idle_bytes()));
  out.Counter("refit_packed_bytes_total", "Bytes of tensor parts that were packed for workers.")
      .Add(Number(observed.pulls.parts.packed().inserted_bytes()));
  out.Counter("refit_packed_shared_bytes_total", "Bytes of tensor parts that a worker found packed.")
      .Add(Number(observed.pulls.parts.packed().found_bytes()));
  out.Counter("refit_delta_encoded_bytes_total", "Payload of deltas that were encoded.")
      .Add(Number(observed.pulls.deltas.cache().inserted_bytes()));
  out.Counter("refit_delta_shared_bytes_total", "Payload of deltas that a worker found encoded.")
      .Add(Number(observed.pulls.deltas.cache().found_bytes()));
}

void AddTraffic(const Observed& observed, MetricFamilies& out) {
  const WorkerRegistry::Totals totals = observed.workers.totals();
  const Counters& counters = observed.admission.counters;
  out.Gauge("refit_convert_threads", "Threads that convert.").Add(observed.convert.threads());
  out.Gauge("refit_convert_queue", "Messages and other work that wait for one of those threads.")
      .Add(Number(observed.convert.waiting()));
  out.Gauge("refit_push_streams", "Push streams open.").Add(observed.pushes.open);
  out.Gauge("refit_pull_streams", "Pull streams open.").Add(observed.pulls.open);
  out.Counter("refit_received_bytes_total", "Payload received from trainers, over connections or through memory.")
      .Add(Number(counters.received_bytes));
  out.Counter("refit_sent_bytes_total", "Payload sent to workers, over connections or through memory.")
      .Add(Number(totals.sent.wire_bytes));
  out.Counter("refit_delivered_bytes_total", "Tensor bytes that these payloads stand for: more, where they are deltas.")
      .Add(Number(totals.sent.tensor_bytes));
  const auto chunks = out.Counter("refit_sent_chunks_total", "Chunks sent to workers, by the form in which they came.");
  chunks.Add(Number(totals.sent.raw), {{"form", "raw"}});
  chunks.Add(Number(totals.sent.delta), {{"form", "delta"}});
  chunks.Add(Number(totals.sent.unchanged), {{"form", "unchanged"}});
  out.Counter("refit_changed_elements_total", "Elements that the deltas sent to workers change.")
      .Add(Number(totals.sent.changed_elements));
  out.Counter("refit_pulls_total", "Pulls begun.").Add(Number(totals.pulls));
  out.Counter("refit_pulls_resumed_total", "Pulls that went on where one before was cut: retries.")
      .Add(Number(totals.resumed_pulls));
  AddCounts(out.Counter("refit_pulls_failed_total", "Pulls that did not end well, by status code."), "code",
            counters.failed_pulls.Get());
  AddCounts(out.Counter("refit_pushes_failed_total", "Push streams that did not end well, by status code."), "code",
            counters.failed_pushes.Get());
  AddCounts(out.Counter("refit_calls_refused_total",
                        "Calls without credentials (UNAUTHENTICATED) or the role that they need (PERMISSION_DENIED)."),
            "code", counters.refused_calls.Get());
  AddCounts(out.Counter("refit_limits_hit_total", "Calls that ended with RESOURCE_EXHAUSTED, by the limit's flag."),
            "limit", counters.limits.Get());
}

void AddSpool(const Observed& observed, MetricFamilies& out) {
  const auto versions =
      out.Gauge("refit_spool_versions", "Versions on disk. No spool metric has samples without --spool.");
  const auto bytes = out.Gauge("refit_spool_bytes", "Bytes of those.");
  const auto pending = out.Gauge("refit_spool_pending_models", "Models whose newest version is not on disk yet.");
  const auto failing = out.Gauge("refit_spool_failing", "1 if the last write failed: versions live in memory alone.");
  if (observed.spool == nullptr) return;
  const v1::SpoolInfo info = observed.spool->Info();
  versions.Add(info.versions());
  bytes.Add(Number(info.bytes()));
  pending.Add(info.pending());
  failing.Add(info.last_error().empty() ? 0 : 1);
}

void AddRelay(const Observed& observed, MetricFamilies& out) {
  const auto connected =
      out.Gauge("refit_relay_connected", "1 if the service above is reached. No relay metric has samples at a root.");
  const auto depth = out.Gauge("refit_relay_depth", "Number of services above; 0: the way to the root is cut.");
  const auto received = out.Counter("refit_relay_received_bytes_total", "Payload of versions that came from above.");
  const auto tensors = out.Counter("refit_relay_received_tensor_bytes_total", "Tensor bytes that it stands for.");
  const auto missing = out.Gauge("refit_relay_missing", "1 if a version above could not be brought here.");
  if (observed.upstream == nullptr) return;
  const v1::RelayStatus status = observed.upstream->Status();
  connected.Add(status.connected() ? 1 : 0);
  depth.Add(status.depth());
  received.Add(Number(status.received_bytes()));
  tensors.Add(Number(status.received_tensor_bytes()));
  missing.Add(status.missing().empty() ? 0 : 1);
}

constexpr std::array kVersionStates = {v1::VERSION_STATE_OPEN, v1::VERSION_STATE_COMMITTED, v1::VERSION_STATE_RETIRED,
                                       v1::VERSION_STATE_ABORTED};

void AddModels(const Observed& observed, const std::vector<v1::VersionSummary>& versions, MetricFamilies& out) {
  const auto known = out.Gauge("refit_versions", "Versions that the service knows, by observed.");
  std::map<std::string, std::map<v1::VersionState, uint64_t>> counts;
  for (const v1::VersionSummary& version : versions) ++counts[version.model()][version.state()];
  for (auto& [model, by_state] : counts) {
    for (const v1::VersionState each : kVersionStates) {
      known.Add(Number(by_state[each]), {{"model", model}, {"state", StateName(each)}});
    }
  }
  const auto newest = out.Gauge("refit_newest_committed_version",
                                "Number of the newest committed version of the model's largest trainer epoch.");
  for (const auto& [model, record] : observed.store.Records()) {
    newest.Add(Number(record.newest_committed), {{"model", model}});
  }
  const auto closed = out.Counter("refit_versions_closed_total",
                                  "Versions that were committed, were aborted, or were aborted because a later run of "
                                  "their trainer took over (fenced).");
  for (const auto& [model, outcomes] : observed.store.outcomes()) {
    closed.Add(Number(outcomes.committed), {{"model", model}, {"outcome", "committed"}});
    closed.Add(Number(outcomes.aborted), {{"model", model}, {"outcome", "aborted"}});
    closed.Add(Number(outcomes.fenced), {{"model", model}, {"outcome", "fenced"}});
  }
}

Labels With(Labels labels, const char* name, const std::string& value) {
  labels.push_back({name, value});
  return labels;
}

// For a restored version, the service that committed it measured the time. Older services recorded only clock times.
uint64_t ElapsedNs(const v1::VersionSummary& version) {
  if (version.elapsed_ns() != 0 || version.closed_at_ns() == 0) return version.elapsed_ns();
  return std::max<int64_t>(version.closed_at_ns() - version.opened_at_ns(), 0);
}

void AddVersions(const std::vector<v1::VersionSummary>& versions, MetricFamilies& out) {
  const auto in_state = out.Gauge("refit_version_state", "1; the label says in which state the version is.");
  const auto bytes = out.Gauge("refit_version_bytes", "Bytes of all its Hugging Face tensors.");
  const auto converted = out.Gauge("refit_version_converted_bytes", "Those that are converted.");
  const auto received = out.Gauge("refit_version_received_bytes", "Native bytes that came.");
  const auto declared = out.Gauge("refit_version_declared_bytes", "Native bytes that are to come, with those.");
  const auto phases =
      out.Gauge("refit_version_phase_seconds",
                "open: until all ranks had declared their shards; receive: from then until the last bytes; convert: "
                "converting and digesting beside that, summed over the threads.");
  const auto push = out.Gauge("refit_version_push_seconds", "From opening to commit, abort or, if it is open, to now.");
  const auto spooled = out.Gauge("refit_version_spooled", "1 if it is on disk.");
  for (const v1::VersionSummary& version : versions) {
    Labels labels = {{"model", version.model()}, {"version", absl::StrCat(version.version())}};
    if (version.trainer_epoch() != 0) labels.push_back({"epoch", absl::StrCat(version.trainer_epoch())});
    in_state.Add(1, With(labels, "state", StateName(version.state())));
    bytes.Add(Number(version.bytes()), labels);
    converted.Add(Number(version.converted_bytes()), labels);
    received.Add(Number(version.received_bytes()), labels);
    declared.Add(Number(version.declared_bytes()), labels);
    phases.Add(Seconds(version.open_ns()), With(labels, "phase", "open"));
    phases.Add(Seconds(version.receive_ns()), With(labels, "phase", "receive"));
    phases.Add(Seconds(version.convert_ns()), With(labels, "phase", "convert"));
    push.Add(Seconds(ElapsedNs(version)), labels);
    spooled.Add(version.spooled() ? 1 : 0, labels);
  }
}

// For the current or last pull.
void AddPull(const v1::Worker& worker, const Labels& labels, const MetricFamilies::Family& phases) {
  if (worker.started_at_ns() != 0) {
    phases.Add(Seconds(worker.waited_ns()), With(labels, "phase", "wait"));
    phases.Add(Seconds(worker.pull_ns() - std::min(worker.pull_ns(), worker.waited_ns())),
               With(labels, "phase", "wire"));
  }
  if (worker.stage_ns() != 0) phases.Add(Seconds(worker.stage_ns()), With(labels, "phase", "stage"));
  if (worker.install_ns() != 0) phases.Add(Seconds(worker.install_ns()), With(labels, "phase", "install"));
}

void AddWorkers(const Observed& observed, MetricFamilies& out) {
  const auto in_state = out.Gauge("refit_worker_state", "1; the label says in which state the worker is.");
  const auto connected = out.Gauge("refit_worker_connected", "1 if it watches or pulls now.");
  const auto version = out.Gauge("refit_worker_version", "Version of its present or last pull.");
  const auto staged = out.Gauge("refit_worker_staged_version", "Newest version that it reports as staged.");
  const auto installed =
      out.Gauge("refit_worker_installed_version", "Version that it reports as in use; none while it is torn.");
  const auto behind =
      out.Gauge("refit_worker_versions_behind", "Committed versions, still known, that are newer than the one in use.");
  const auto phases =
      out.Gauge("refit_worker_phase_seconds",
                "Of its last version. wait: for the trainer, within the pull; wire: the rest of the pull; stage: pull "
                "and verification, and install, as it reports them.");
  const auto pull_sent = out.Gauge("refit_worker_pull_sent_bytes", "Tensor bytes sent in its present or last pull.");
  const auto pull_wire = out.Gauge("refit_worker_pull_wire_bytes", "Payload in which they came.");
  const auto pull_bytes = out.Gauge("refit_worker_pull_bytes", "Tensor bytes that this pull asked for.");
  const auto sent = out.Counter("refit_worker_sent_bytes_total", "Payload sent in all its pulls.");
  const auto pulls = out.Counter("refit_worker_pulls_total", "Pulls that it began.");
  const auto resumed = out.Counter("refit_worker_pulls_resumed_total", "Those that resumed one that was cut.");
  const auto failed = out.Counter("refit_worker_pulls_failed_total", "Those that ended before the version was whole.");
  for (const v1::Worker& worker : observed.workers.List("")) {
    if (worker.via_size() > 0) continue;                         // its relay has it
    if (worker.has_relay() && worker.model().empty()) continue;  // its watch of all models
    const Labels labels = {{"model", worker.model()}, {"worker", ShownName(worker)}};
    in_state.Add(1, With(labels, "state", StateName(worker.state())));
    connected.Add(worker.connected() ? 1 : 0, labels);
    if (worker.version() != 0) version.Add(Number(worker.version()), labels);
    if (worker.has_staged_version()) staged.Add(Number(worker.staged_version()), labels);
    if (worker.has_installed_version()) {
      installed.Add(Number(worker.installed_version()), labels);
      constexpr auto kLast = std::numeric_limits<uint64_t>::max();
      const auto newer = observed.store.CommittedBetween(
          worker.model(), {worker.installed_epoch(), worker.installed_version()}, {kLast, kLast});
      behind.Add(Number(newer.size()), labels);
    }
    AddPull(worker, labels, phases);
    pull_sent.Add(Number(worker.sent_bytes()), labels);
    pull_wire.Add(Number(worker.wire_bytes()), labels);
    pull_bytes.Add(Number(worker.selected_bytes()), labels);
    sent.Add(Number(worker.total_sent_bytes()), labels);
    pulls.Add(Number(worker.pulls()), labels);
    resumed.Add(Number(worker.resumed_pulls()), labels);
    failed.Add(Number(worker.failed_pulls()), labels);
  }
}

}  // namespace

std::vector<prometheus::MetricFamily> Metrics::Collect() const {
  std::vector<v1::VersionSummary> versions;
  for (const std::shared_ptr<Version>& version : observed_.store.List("")) versions.push_back(version->Summary());
  MetricFamilies out;
  AddProcess(observed_, out);
  AddMemory(observed_, out);
  AddTraffic(observed_, out);
  AddSpool(observed_, out);
  AddRelay(observed_, out);
  AddModels(observed_, versions, out);
  AddVersions(versions, out);
  AddWorkers(observed_, out);
  return out.Take();
}

}  // namespace refit

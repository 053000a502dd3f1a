#include "server/fleet/worker_registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/net/wall_clock.h"
#include "refit/tensor_spec.h"
#include "server/access/limit_reached.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::hours kForgetAfter{1};

using Had = WorkerRegistry::Had;

void SetInstalled(const std::optional<Had>& installed, v1::Worker& worker) {
  worker.clear_installed_version();
  if (installed.has_value()) worker.set_installed_version(installed->key.number);
  worker.set_installed_epoch(installed.value_or(Had()).key.epoch);
  worker.set_installed_digest(installed.value_or(Had()).digest);
}

void Apply(const v1::ReportWorkerRequest& report, const std::optional<Had>& had, v1::Worker& worker) {
  worker.set_version(report.version());
  worker.set_last_error(Printable(report.error()));
  if (report.stage_ns() != 0) worker.set_stage_ns(report.stage_ns());
  if (report.install_ns() != 0) worker.set_install_ns(report.install_ns());
  switch (report.phase()) {
    case v1::WORKER_PHASE_STAGED:
      if (!had.has_value()) break;
      worker.set_state(v1::WORKER_STATE_STAGED);
      worker.set_staged_version(had->key.number);
      worker.set_staged_epoch(had->key.epoch);
      worker.set_staged_digest(had->digest);
      break;
    case v1::WORKER_PHASE_INSTALLED:
    case v1::WORKER_PHASE_TORN: {
      const bool torn = report.phase() == v1::WORKER_PHASE_TORN;
      SetInstalled(torn ? std::nullopt : had, worker);
      worker.clear_foreign_version();
      worker.clear_foreign_epoch();
      if (!had.has_value()) {
        worker.set_foreign_version(report.version());
        worker.set_foreign_epoch(report.trainer_epoch());
      }
      worker.set_state(torn              ? v1::WORKER_STATE_TORN
                       : had.has_value() ? v1::WORKER_STATE_INSTALLED
                                         : v1::WORKER_STATE_OTHER_RUN);
      break;
    }
    default:
      worker.set_state(v1::WORKER_STATE_FAILED);
      break;
  }
}

// What was sent in the current or last pull.
void SetSent(const SentChunks& sent, v1::Worker& worker) {
  worker.set_sent_bytes(sent.tensor_bytes);
  worker.set_wire_bytes(sent.wire_bytes);
  worker.set_raw_chunks(sent.raw);
  worker.set_delta_chunks(sent.delta);
  worker.set_unchanged_chunks(sent.unchanged);
  worker.set_changed_elements(sent.changed_elements);
}

// The version in a report, if the worker has reported it before, at a time when the service still knew that version.
std::optional<Had> SaidBefore(const v1::ReportWorkerRequest& report, const v1::Worker& worker) {
  const Had said{{worker.installed_epoch(), worker.installed_version()}, worker.installed_digest()};
  const bool same = worker.has_installed_version() && report.has_manifest_digest() &&
                    said.key == VersionKey{report.trainer_epoch(), report.version()} &&
                    said.digest == report.manifest_digest();
  return same ? std::optional(said) : std::nullopt;
}

auto OrderOf(const v1::Worker& worker) {
  // Workers without a life are told apart by where they are.
  return std::make_tuple(absl::string_view(worker.model()), absl::string_view(worker.name()), worker.life(),
                         worker.life() == 0 ? absl::StrJoin(worker.via(), "/") : std::string());
}

// Orders the workers. A worker that has moved may be known in two places: the one where it is connected counts, or
// where it has come further.
void KeepOneOfEach(std::vector<v1::Worker>& list) {
  const auto progress = [](const v1::Worker& worker) {
    return std::make_tuple(worker.connected(), worker.installed_epoch(), worker.installed_version());
  };
  std::stable_sort(list.begin(), list.end(), [&](const v1::Worker& a, const v1::Worker& b) {
    const auto left = OrderOf(a);
    const auto right = OrderOf(b);
    return left != right ? left < right : progress(a) > progress(b);
  });
  const auto same = [](const v1::Worker& a, const v1::Worker& b) { return OrderOf(a) == OrderOf(b); };
  list.erase(std::unique(list.begin(), list.end(), same), list.end());
}

// Sets the labels of workers of one name. A worker that is the only one, or the only connected one, gets the plain
// name. The others get the name and the beginning of their life.
void SetLabels(absl::Span<v1::Worker> list) {
  constexpr int kShortDigits = 4;
  constexpr int kLifeDigits = 16;
  const auto begin = list.begin();
  const auto connected = std::count_if(begin, list.end(), [](const v1::Worker& worker) { return worker.connected(); });
  std::map<std::string, int> beginnings;
  const auto beginning = [](const v1::Worker& worker, int digits) {
    return absl::StrFormat("%016x", worker.life()).substr(0, digits);
  };
  for (auto it = begin; it != list.end(); ++it) ++beginnings[beginning(*it, kShortDigits)];
  for (auto it = begin; it != list.end(); ++it) {
    if (list.end() - begin == 1 || (connected == 1 && it->connected())) continue;
    const bool alike = beginnings[beginning(*it, kShortDigits)] > 1;
    it->set_label(absl::StrCat(it->name(), "#", beginning(*it, alike ? kLifeDigits : kShortDigits)));
  }
}

// Of an ordered list.
void SetLabels(std::vector<v1::Worker>& list) {
  const auto of_one = [](const v1::Worker& a, const v1::Worker& b) {
    return a.model() == b.model() && a.name() == b.name();
  };
  for (size_t first = 0, end = 0; first < list.size(); first = end) {
    while (end < list.size() && of_one(list[first], list[end])) ++end;
    SetLabels(absl::MakeSpan(list).subspan(first, end - first));
  }
}

}  // namespace

std::shared_ptr<WorkerRegistry::Entry> WorkerRegistry::Touch(const WorkerId& id, const std::string& peer) {
  const Clock::time_point now = Clock::now();
  ForgetSilent(now);
  if (workers_.count(id) == 0) MakeRoom();
  std::shared_ptr<Entry> entry = workers_[id];
  if (entry == nullptr) {
    entry = workers_[id] = std::make_shared<Entry>();
    entry->worker.set_name(id.name);
    entry->worker.set_model(id.model);
    entry->worker.set_life(id.life);
  }
  entry->last_call = now;
  entry->worker.set_peer(peer);
  ForgetFormerLives(id);
  return entry;
}

// Keeps only one record of a worker that is restarted again and again.
void WorkerRegistry::ForgetFormerLives(const WorkerId& id) {
  auto last = workers_.end();
  for (auto it = workers_.lower_bound({id.model, id.name, 0});
       it != workers_.end() && it->first.model == id.model && it->first.name == id.name;) {
    if (it->second->connected() || it->first.life == id.life) {
      ++it;
    } else if (last == workers_.end()) {
      last = it++;
    } else if (it->second->last_call < last->second->last_call) {
      it = workers_.erase(it);
    } else {
      workers_.erase(std::exchange(last, it));
      ++it;
    }
  }
}

void WorkerRegistry::ForgetSilent(Clock::time_point now) {
  for (auto it = workers_.begin(); it != workers_.end();) {
    const bool forget = !it->second->connected() && now - it->second->last_call > kForgetAfter;
    it = forget ? workers_.erase(it) : std::next(it);
  }
}

void WorkerRegistry::MakeRoom() {
  if (workers_.size() < max_workers_) return;
  auto longest_silent = workers_.end();
  for (auto it = workers_.begin(); it != workers_.end(); ++it) {
    if (it->second->connected()) continue;
    if (longest_silent == workers_.end() || it->second->last_call < longest_silent->second->last_call)
      longest_silent = it;
  }
  if (longest_silent != workers_.end()) workers_.erase(longest_silent);
}

absl::Status WorkerRegistry::CheckRoom(const WorkerId& id) {
  absl::MutexLock lock(&mutex_);
  if (workers_.count(id) != 0) return absl::OkStatus();
  ForgetSilent(Clock::now());
  MakeRoom();
  if (workers_.size() < max_workers_) return absl::OkStatus();
  return LimitReached("--max-workers", absl::StrCat("no room for worker '", Printable(id.name), "': ", max_workers_,
                                                    " pull or watch, which is the limit (--max-workers)"));
}

std::unique_ptr<WorkerRegistry::Pull> WorkerRegistry::StartPull(const WorkerId& id, const std::string& peer,
                                                                uint64_t version, uint64_t selected_bytes,
                                                                bool resumed) {
  std::shared_ptr<Entry> entry;
  {
    absl::MutexLock lock(&mutex_);
    entry = Touch(id, peer);
    ++entry->pulls;
    v1::Worker& worker = entry->worker;
    worker.set_state(v1::WORKER_STATE_PULLING);
    worker.set_version(version);
    SetSent(SentChunks(), worker);
    worker.clear_base_version();
    worker.set_selected_bytes(selected_bytes);
    entry->pull_began = entry->last_call;
    worker.set_started_at_ns(UnixNanos());
    worker.set_ended_at_ns(0);
    worker.set_waited_ns(0);
    worker.clear_last_error();
    worker.set_pulls(worker.pulls() + 1);
    totals_.pulls += 1;
    if (resumed) {
      worker.set_resumed_pulls(worker.resumed_pulls() + 1);
      totals_.resumed_pulls += 1;
    }
  }
  observers_.Tell();
  return std::make_unique<Pull>(*this, std::move(entry));
}

std::unique_ptr<WorkerRegistry::Watch> WorkerRegistry::StartWatch(const WorkerId& id, const std::string& peer) {
  std::shared_ptr<Entry> entry;
  {
    absl::MutexLock lock(&mutex_);
    entry = Touch(id, peer);
    ++entry->watches;
    v1::Worker& worker = entry->worker;
    if (worker.state() == v1::WORKER_STATE_UNSPECIFIED) worker.set_state(v1::WORKER_STATE_WATCHING);
  }
  observers_.Tell();
  return std::make_unique<Watch>(*this, std::move(entry));
}

WorkerRegistry::Watch::Watch(WorkerRegistry& registry, std::shared_ptr<Entry> entry)
    : registry_(registry), entry_(std::move(entry)) {}

WorkerRegistry::Watch::~Watch() {
  {
    absl::MutexLock lock(&registry_.mutex_);
    --entry_->watches;
    entry_->last_call = Clock::now();
    const v1::Worker& worker = entry_->worker;
    if (!entry_->connected() && worker.state() == v1::WORKER_STATE_WATCHING) {
      registry_.workers_.erase({worker.model(), worker.name(), worker.life()});
    }
  }
  registry_.observers_.Tell();
}

absl::StatusOr<bool> WorkerRegistry::Report(const v1::ReportWorkerRequest& report, const std::string& peer,
                                            const std::optional<Had>& had) {
  if (report.version() == 0 || report.worker().empty()) {
    return absl::InvalidArgumentError("a worker's report names the worker and a version");
  }
  const bool known = report.phase() == v1::WORKER_PHASE_STAGED || report.phase() == v1::WORKER_PHASE_INSTALLED ||
                     report.phase() == v1::WORKER_PHASE_TORN || report.phase() == v1::WORKER_PHASE_FAILED;
  if (!known) {
    return absl::InvalidArgumentError(absl::StrCat("worker ", Printable(report.worker()), " reports phase ",
                                                   static_cast<int>(report.phase()),
                                                   "; expected staged, installed, torn or failed"));
  }
  bool foreign = false;
  {
    absl::MutexLock lock(&mutex_);
    v1::Worker& worker = Touch({report.model(), Printable(report.worker()), report.life()}, peer)->worker;
    const std::optional<Had> meant = had.has_value() ? had : SaidBefore(report, worker);
    foreign = !meant.has_value() && report.phase() != v1::WORKER_PHASE_FAILED;
    Apply(report, meant, worker);
  }
  observers_.Tell();
  return foreign;
}

std::vector<v1::Worker> WorkerRegistry::List(const std::string& model) const {
  std::vector<v1::Worker> list = ListHere(model);
  for (v1::Worker& worker : list) relays_.Describe(worker);
  for (v1::Worker& worker : relays_.List(model)) list.push_back(std::move(worker));
  KeepOneOfEach(list);
  SetLabels(list);
  return list;
}

std::vector<v1::Worker> WorkerRegistry::ListHere(const std::string& model) const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::Worker> list;
  for (const auto& [id, entry] : workers_) {
    if (!model.empty() && id.model != model) continue;
    list.push_back(entry->worker);
    v1::Worker& worker = list.back();
    worker.set_connected(entry->connected());
    const bool is_pulling = worker.started_at_ns() != 0 && worker.ended_at_ns() == 0;
    if (is_pulling) worker.set_pull_ns(std::chrono::nanoseconds(Clock::now() - entry->pull_began).count());
  }
  return list;
}

WorkerRegistry::Totals WorkerRegistry::totals() const {
  absl::MutexLock lock(&mutex_);
  return totals_;
}

WorkerRegistry::Pull::Pull(WorkerRegistry& registry, std::shared_ptr<Entry> entry)
    : registry_(registry), entry_(std::move(entry)) {}

WorkerRegistry::Pull::~Pull() { Fail(absl::CancelledError("the worker went away")); }

void WorkerRegistry::Pull::Sent(const SentChunk& chunk) {
  absl::MutexLock lock(&registry_.mutex_);
  registry_.totals_.sent.Add(chunk);
  sent_.Add(chunk);
  v1::Worker& worker = entry_->worker;
  SetSent(sent_, worker);
  worker.set_total_sent_bytes(worker.total_sent_bytes() + chunk.wire_bytes);
}

void WorkerRegistry::Pull::SetBase(uint64_t version) {
  absl::MutexLock lock(&registry_.mutex_);
  entry_->worker.set_base_version(version);
}

void WorkerRegistry::Pull::Waited(std::chrono::nanoseconds time) {
  absl::MutexLock lock(&registry_.mutex_);
  entry_->worker.set_waited_ns(entry_->worker.waited_ns() + time.count());
}

void WorkerRegistry::Pull::Complete() { End(v1::WORKER_STATE_COMPLETE, ""); }

void WorkerRegistry::Pull::Fail(const absl::Status& status) { End(v1::WORKER_STATE_FAILED, status.ToString()); }

void WorkerRegistry::Pull::End(v1::WorkerState state, const std::string& error) {
  if (ended_) return;
  ended_ = true;
  {
    absl::MutexLock lock(&registry_.mutex_);
    --entry_->pulls;
    entry_->last_call = Clock::now();
    v1::Worker& worker = entry_->worker;
    // The worker may have reported more since its last byte was sent.
    if (worker.state() == v1::WORKER_STATE_PULLING) worker.set_state(state);
    const std::chrono::nanoseconds took = entry_->last_call - entry_->pull_began;
    worker.set_pull_ns(took.count());
    worker.set_ended_at_ns(worker.started_at_ns() + took.count());
    if (!error.empty()) worker.set_last_error(Printable(error));
    if (state == v1::WORKER_STATE_COMPLETE) worker.set_last_complete_version(worker.version());
    if (state == v1::WORKER_STATE_FAILED) worker.set_failed_pulls(worker.failed_pulls() + 1);
  }
  registry_.observers_.Tell();
}

}  // namespace refit

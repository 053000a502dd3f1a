#include "server/worker_registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/net/wall_clock.h"
#include "common/tensor/tensor_spec.h"
#include "server/limit_reached.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::hours kForgetAfter{1};

void Apply(const v1::ReportWorkerRequest& report, v1::Worker& worker) {
  worker.set_version(report.version());
  worker.set_last_error(Printable(report.error()));
  if (report.stage_ns() != 0) worker.set_stage_ns(report.stage_ns());
  if (report.install_ns() != 0) worker.set_install_ns(report.install_ns());
  switch (report.phase()) {
    case v1::WORKER_PHASE_STAGED:
      worker.set_state(v1::WORKER_STATE_STAGED);
      worker.set_staged_version(report.version());
      break;
    case v1::WORKER_PHASE_INSTALLED:
      worker.set_state(v1::WORKER_STATE_INSTALLED);
      worker.set_installed_version(report.version());
      break;
    case v1::WORKER_PHASE_TORN:
      worker.set_state(v1::WORKER_STATE_TORN);
      worker.clear_installed_version();
      break;
    default:
      worker.set_state(v1::WORKER_STATE_FAILED);
      break;
  }
}

}  // namespace

std::shared_ptr<WorkerRegistry::Entry> WorkerRegistry::Touch(const std::string& model, const std::string& name,
                                                             const std::string& peer) {
  const Clock::time_point now = Clock::now();
  ForgetSilent(now);
  if (workers_.count({model, name}) == 0) MakeRoom();
  std::shared_ptr<Entry>& entry = workers_[{model, name}];
  if (entry == nullptr) entry = std::make_shared<Entry>();
  entry->last_call = now;
  entry->worker.set_name(name);
  entry->worker.set_model(model);
  entry->worker.set_peer(peer);
  return entry;
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

absl::Status WorkerRegistry::CheckRoom(const std::string& model, const std::string& name) {
  absl::MutexLock lock(&mutex_);
  if (workers_.count({model, name}) != 0) return absl::OkStatus();
  ForgetSilent(Clock::now());
  MakeRoom();
  if (workers_.size() < max_workers_) return absl::OkStatus();
  return LimitReached("--max-workers", absl::StrCat("no room for worker '", Printable(name), "': ", max_workers_,
                                                    " pull or watch, which is the limit (--max-workers)"));
}

std::unique_ptr<WorkerRegistry::Pull> WorkerRegistry::StartPull(const std::string& model, const std::string& name,
                                                                const std::string& peer, uint64_t version,
                                                                uint64_t selected_bytes, bool resumed) {
  std::shared_ptr<Entry> entry;
  {
    absl::MutexLock lock(&mutex_);
    entry = Touch(model, name, peer);
    ++entry->pulls;
    v1::Worker& worker = entry->worker;
    worker.set_state(v1::WORKER_STATE_PULLING);
    worker.set_version(version);
    worker.set_sent_bytes(0);
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
  Tell();
  return std::make_unique<Pull>(*this, std::move(entry));
}

void WorkerRegistry::Watching(const std::string& model, const std::string& name, const std::string& peer) {
  {
    absl::MutexLock lock(&mutex_);
    const std::shared_ptr<Entry> entry = Touch(model, name, peer);
    ++entry->watches;
    v1::Worker& worker = entry->worker;
    if (worker.state() == v1::WORKER_STATE_UNSPECIFIED) worker.set_state(v1::WORKER_STATE_WATCHING);
  }
  Tell();
}

void WorkerRegistry::WatchEnded(const std::string& model, const std::string& name) {
  {
    absl::MutexLock lock(&mutex_);
    const auto it = workers_.find({model, name});
    if (it == workers_.end() || it->second->watches == 0) return;
    --it->second->watches;
    it->second->last_call = Clock::now();
    if (!it->second->connected() && it->second->worker.state() == v1::WORKER_STATE_WATCHING) workers_.erase(it);
  }
  Tell();
}

absl::Status WorkerRegistry::Report(const v1::ReportWorkerRequest& report, const std::string& peer) {
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
  {
    absl::MutexLock lock(&mutex_);
    Apply(report, Touch(report.model(), Printable(report.worker()), peer)->worker);
  }
  Tell();
  return absl::OkStatus();
}

uint64_t WorkerRegistry::Observe(std::function<void()> on_change) {
  absl::MutexLock lock(&mutex_);
  observers_.emplace(next_observer_, std::move(on_change));
  return next_observer_++;
}

void WorkerRegistry::StopObserving(uint64_t id) {
  absl::MutexLock lock(&mutex_);
  observers_.erase(id);
}

void WorkerRegistry::Tell() {
  std::vector<std::function<void()>> observers;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, observer] : observers_) observers.push_back(observer);
  }
  for (const std::function<void()>& on_change : observers) on_change();
}

std::vector<v1::Worker> WorkerRegistry::List(const std::string& model) const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::Worker> list;
  for (const auto& [key, entry] : workers_) {
    if (!model.empty() && key.first != model) continue;
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

void WorkerRegistry::Pull::Sent(uint64_t bytes) {
  absl::MutexLock lock(&registry_.mutex_);
  v1::Worker& worker = entry_->worker;
  worker.set_sent_bytes(worker.sent_bytes() + bytes);
  worker.set_total_sent_bytes(worker.total_sent_bytes() + bytes);
  registry_.totals_.sent_bytes += bytes;
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
    // It may have told more since its last byte was sent.
    if (worker.state() == v1::WORKER_STATE_PULLING) worker.set_state(state);
    const std::chrono::nanoseconds took = entry_->last_call - entry_->pull_began;
    worker.set_pull_ns(took.count());
    worker.set_ended_at_ns(worker.started_at_ns() + took.count());
    if (!error.empty()) worker.set_last_error(Printable(error));
    if (state == v1::WORKER_STATE_COMPLETE) worker.set_last_complete_version(worker.version());
    if (state == v1::WORKER_STATE_FAILED) worker.set_failed_pulls(worker.failed_pulls() + 1);
  }
  registry_.Tell();
}

}  // namespace refit

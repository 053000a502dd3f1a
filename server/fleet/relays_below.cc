#include "server/fleet/relays_below.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "refit/tensor_spec.h"

namespace refit {
namespace {

constexpr std::chrono::hours kForgetAfter{1};

}  // namespace

RelaysBelow::Attendance::~Attendance() { relays_.Leave(life_); }

absl::StatusOr<std::unique_ptr<RelaysBelow::Attendance>> RelaysBelow::Attend(const v1::AttendRequest& request) {
  if (request.relay().empty() || request.life() == 0) {
    return absl::InvalidArgumentError("a relay attends with its name and its life, a random number");
  }
  const std::string name = Printable(request.relay());
  {
    absl::MutexLock lock(&mutex_);
    const auto known = relays_.find(request.life());
    if (known != relays_.end() && known->second.attends) {
      return absl::AlreadyExistsError(absl::StrCat("relay '", name, "' attends already"));
    }
    Forget(name);
    Relay& relay = relays_[request.life()];
    relay.name = name;
    relay.attends = true;
  }
  on_change_();
  return std::make_unique<Attendance>(*this, request.life());
}

// Former lives of this relay, and relays that went away long ago.
void RelaysBelow::Forget(const std::string& name) {
  const Clock::time_point now = Clock::now();
  for (auto it = relays_.begin(); it != relays_.end();) {
    const Relay& relay = it->second;
    const bool forget = !relay.attends && (relay.name == name || now - relay.left > kForgetAfter);
    it = forget ? relays_.erase(it) : std::next(it);
  }
}

void RelaysBelow::Leave(uint64_t life) {
  {
    absl::MutexLock lock(&mutex_);
    Relay& relay = relays_[life];
    relay.attends = false;
    relay.left = Clock::now();
    relay.coming.clear();
    for (v1::Worker& worker : relay.workers) worker.set_connected(false);
  }
  on_change_();
}

absl::Status RelaysBelow::Report(const v1::ReportBelowRequest& report) {
  {
    absl::MutexLock lock(&mutex_);
    if (absl::Status status = Add(report); !status.ok()) return status;
  }
  if (!report.more()) on_change_();
  return absl::OkStatus();
}

absl::Status RelaysBelow::Add(const v1::ReportBelowRequest& report) {
  const auto found = relays_.find(report.life());
  if (found == relays_.end() || !found->second.attends) {
    return absl::FailedPreconditionError("a relay reports only while it attends; call Attend first");
  }
  Relay& relay = found->second;
  const uint64_t count = CountWithout(report.life()) + relay.coming.size() + report.workers_size();
  if (count > kMaxWorkersBelow) {
    relay.coming.clear();
    return absl::ResourceExhaustedError(absl::StrCat("relay '", relay.name, "' reports workers for whom there is no ",
                                                     "room: ", count, " would be below this service; at most ",
                                                     kMaxWorkersBelow, " may"));
  }
  for (const v1::Worker& reported : report.workers()) {
    v1::Worker& worker = relay.coming.emplace_back(reported);
    worker.clear_via();
    worker.add_via(relay.name);
    worker.mutable_via()->MergeFrom(reported.via());
  }
  if (report.more()) return absl::OkStatus();
  relay.status = report.status();
  relay.workers = std::exchange(relay.coming, {});
  return absl::OkStatus();
}

uint64_t RelaysBelow::CountWithout(uint64_t life) const {
  uint64_t count = 0;
  for (const auto& [other, relay] : relays_) count += other == life ? 0 : relay.workers.size();
  return count;
}

std::vector<v1::Worker> RelaysBelow::List(const std::string& model) const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::Worker> list;
  for (const auto& [life, relay] : relays_) {
    for (const v1::Worker& worker : relay.workers) {
      if (model.empty() || worker.model() == model) list.push_back(worker);
    }
  }
  return list;
}

void RelaysBelow::Describe(v1::Worker& worker) const {
  absl::MutexLock lock(&mutex_);
  const auto found = relays_.find(worker.life());
  if (worker.life() == 0 || found == relays_.end()) return;
  *worker.mutable_relay() = found->second.status;
  worker.set_connected(found->second.attends);
}

}  // namespace refit

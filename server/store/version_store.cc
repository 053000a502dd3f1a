#include "server/store/version_store.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/limits/host_limits.h"
#include "server/access/limit_reached.h"

namespace refit {
namespace {

constexpr size_t kMaxModelNameBytes = 256;

// Sum of the HF tensors' bytes, or the largest uint64_t if it is larger than that.
uint64_t TotalBytes(const VersionPlan& plan) {
  uint64_t total = 0;
  for (const VersionPlan::Output& output : plan.outputs) {
    const uint64_t bytes = output.planned.hf.ByteSize();
    total = bytes > std::numeric_limits<uint64_t>::max() - total ? std::numeric_limits<uint64_t>::max() : total + bytes;
  }
  return total;
}

StoreOptions WithBudget(StoreOptions options) {
  if (options.memory_budget_bytes == 0) options.memory_budget_bytes = DefaultMemoryBudget();
  return options;
}

}  // namespace

uint64_t DefaultMemoryBudget() {
  constexpr uint64_t kMost = uint64_t{8} << 30;
  const uint64_t usable = LeastMemoryLimit().bytes;
  return usable == 0 ? kMost : std::min(kMost, usable / 2);
}

VersionStore::VersionStore(StoreOptions options)
    : options_(WithBudget(std::move(options))),
      // Memory of streamed tensors is freed as soon as they are sent, so it is not shared.
      memory_(std::make_shared<TensorMemory>(
          options_.memory_budget_bytes,
          options_.shared_memory && options_.retain_versions > 0 ? Backing::kShared : Backing::kPrivate,
          options_.on_unshared)),
      prefault_(options_.prefault && options_.retain_versions > 0 ? std::make_unique<WorkQueue>(1) : nullptr) {}

absl::StatusOr<std::shared_ptr<Version>> VersionStore::FindToJoin(const VersionIdentity& identity, uint32_t rank) {
  const auto model = models_.find(identity.model);
  if (identity.world <= 1 || model == models_.end()) return nullptr;
  const auto found = model->second.find({identity.trainer_epoch, identity.number});
  if (found == model->second.end()) return nullptr;
  const std::shared_ptr<Version>& version = found->second;
  const v1::VersionSummary summary = version->Summary();
  RankShards& rank_shards = version->rank_shards();
  if (summary.state() == v1::VERSION_STATE_OPEN && rank_shards.world() != identity.world) {
    return absl::InvalidArgumentError(absl::StrCat("version ", version->Label(), " is pushed by ", rank_shards.world(),
                                                   " ranks, but rank ", rank, " says it is one of ", identity.world));
  }
  if (summary.state() == v1::VERSION_STATE_OPEN && !rank_shards.HasJoined(rank)) return version;
  const bool is_meant = rank_shards.world() == identity.world;
  if (summary.state() == v1::VERSION_STATE_ABORTED && is_meant && rank_shards.Hear(rank)) {
    return absl::AbortedError(absl::StrCat("version ", version->Label(), " was aborted before rank ", rank,
                                           " came: ", summary.abort_reason()));
  }
  return nullptr;
}

absl::Status VersionStore::CheckIdentity(const VersionIdentity& identity) const {
  if (identity.model.empty() || identity.model.size() > kMaxModelNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a model name has 1 to ", kMaxModelNameBytes, " bytes, this one has ", identity.model.size()));
  }
  if (identity.number == 0) return absl::InvalidArgumentError("version numbers begin at 1, got 0");
  if (models_.count(identity.model) != 0 || models_.size() < options_.max_models) return absl::OkStatus();
  return LimitReached("--max-models", absl::StrCat("no room for another model: ", options_.max_models,
                                                   " are known, which is the limit (--max-models)"));
}

absl::Status VersionStore::Fence(const VersionIdentity& identity, Changes& changes) {
  const auto record = records_.find(identity.model);
  if (record == records_.end()) return absl::OkStatus();  // nothing to fence off
  const uint64_t seen = record->second.trainer_epoch;
  if (identity.trainer_epoch < seen) {
    return absl::FailedPreconditionError(absl::StrCat("version ", identity.model, "/", identity.number,
                                                      " comes from trainer epoch ", identity.trainer_epoch,
                                                      ", but epoch ", seen, " has taken over"));
  }
  for (const auto& [key, version] : models_[identity.model]) {
    if (version->identity().trainer_epoch >= identity.trainer_epoch) continue;
    const bool aborted = version->SetAborted(
        absl::StrCat("its trainer epoch ", version->identity().trainer_epoch, " was fenced off: epoch ",
                     identity.trainer_epoch, " has taken over, with version ", identity.number),
        /*fenced=*/true);
    if (!aborted) continue;
    ++outcomes_[identity.model].fenced;
    changes.push_back(version);
  }
  if (identity.trainer_epoch > seen) record->second = {0, identity.trainer_epoch};
  return absl::OkStatus();
}

absl::Status VersionStore::CheckOpenVersions() const {
  uint32_t open = 0;
  for (const auto& [model, versions] : models_) {
    for (const auto& [key, version] : versions) open += version->state() == v1::VERSION_STATE_OPEN ? 1 : 0;
  }
  if (open < options_.max_open_versions) return absl::OkStatus();
  return LimitReached("--max-open-versions",
                      absl::StrCat("no room for another open version: ", options_.max_open_versions,
                                   " are being pushed, which is the limit (--max-open-versions)"));
}

absl::Status VersionStore::CheckMayOpen(const VersionIdentity& identity) const {
  const std::string label = absl::StrCat(identity.model, "/", identity.number);
  const auto model = models_.find(identity.model);
  if (model == models_.end()) return CheckOpenVersions();
  const VersionKey wanted{identity.trainer_epoch, identity.number};
  for (const auto& [key, version] : model->second) {
    if (version->state() != v1::VERSION_STATE_OPEN) continue;
    if (key == wanted) {
      return absl::AlreadyExistsError(absl::StrCat("version ", label, " is being pushed already, by '",
                                                   Printable(version->identity().publisher), "'"));
    }
    return absl::FailedPreconditionError(absl::StrCat("version ", label, " cannot be opened while version ",
                                                      version->Label(), " is open; commit or abort that one first"));
  }
  const uint64_t newest = records_.at(identity.model).newest_committed;
  if (identity.number > newest) return CheckOpenVersions();
  const auto known = model->second.find(wanted);
  const bool was_committed = known != model->second.end() && known->second->state() != v1::VERSION_STATE_ABORTED;
  const std::string message =
      absl::StrCat("version ", label, was_committed ? " was committed before" : " lies below",
                   was_committed ? "; the newest is " : " the newest committed version ", newest,
                   "; expected a larger number, or a larger trainer_epoch, whose numbers may "
                   "start anew");
  return was_committed ? absl::AlreadyExistsError(message) : absl::FailedPreconditionError(message);
}

std::map<std::string, VersionStore::Outcomes> VersionStore::outcomes() const {
  absl::MutexLock lock(&mutex_);
  return outcomes_;
}

uint64_t VersionStore::ReservedLocked() const {
  uint64_t reserved = 0;
  for (const auto& [model, versions] : models_) {
    for (const auto& [key, version] : versions) {
      reserved += version->reserved_bytes();
    }
  }
  return reserved;
}

absl::Status VersionStore::MakeRoom(const std::string& label, uint64_t bytes, Changes& changes) {
  uint64_t reserved = ReservedLocked();
  auto fits = [&] { return bytes <= options_.memory_budget_bytes && reserved <= options_.memory_budget_bytes - bytes; };
  // First retired versions, which are kept only for slow readers. Then committed ones older than their model's newest.
  for (const v1::VersionState expendable : {v1::VERSION_STATE_RETIRED, v1::VERSION_STATE_COMMITTED}) {
    for (auto& [model, versions] : models_) {
      const std::set<std::shared_ptr<Version>> stay = MustStay(versions);
      for (auto& [key, version] : versions) {
        if (fits()) break;
        if (stay.count(version) != 0 || version->state() != expendable || version->reserved_bytes() == 0) continue;
        reserved -= version->reserved_bytes();
        version->SetRetired();
        version->DropData();
        if (expendable == v1::VERSION_STATE_COMMITTED) changes.push_back(version);
      }
    }
  }
  if (!fits()) {
    return LimitReached("--memory", absl::StrCat("version ", label, " needs ", bytes, " bytes of tensor memory, but ",
                                                 reserved, " of the budget of ", options_.memory_budget_bytes,
                                                 " are held by versions that must stay; raise --memory"));
  }
  memory_->TrimIdleTo(options_.memory_budget_bytes - reserved);
  return absl::OkStatus();
}

absl::Status VersionStore::MakeRoomToStream(const VersionIdentity& identity, const VersionPlan& plan,
                                            Changes& changes) {
  for (const VersionPlan::Output& output : plan.outputs) {
    const TensorSpec& hf = output.planned.hf;
    if (hf.ByteSize() <= options_.memory_budget_bytes) continue;
    return LimitReached(
        "--memory", absl::StrCat("version ", identity.model, "/", identity.number, ": tensor ", hf.ToString(), " has ",
                                 hf.ByteSize(), " bytes, more than the memory budget of ", options_.memory_budget_bytes,
                                 "; raise --memory"));
  }
  if (TotalBytes(plan) > 0) RetireBeyond(0, models_[identity.model], changes);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Version>> VersionStore::Open(VersionIdentity identity, uint32_t rank, VersionPlan plan) {
  absl::StatusOr<std::shared_ptr<Version>> version;
  Changes changes;
  {
    absl::MutexLock lock(&mutex_);
    version = OpenLocked(std::move(identity), rank, std::move(plan), changes);
  }
  for (const std::shared_ptr<Version>& changed : changes) changed->WakeReady();
  observers_.Tell(changes);
  if (version.ok()) ++opened_;
  return version;
}

absl::StatusOr<std::shared_ptr<Version>> VersionStore::OpenLocked(VersionIdentity identity, uint32_t rank,
                                                                  VersionPlan plan, Changes& changes) {
  if (absl::Status status = CheckIdentity(identity); !status.ok()) return status;
  if (absl::Status status = Fence(identity, changes); !status.ok()) return status;
  const absl::StatusOr<std::shared_ptr<Version>> to_join = FindToJoin(identity, rank);
  if (!to_join.ok() || *to_join != nullptr) return to_join;
  if (absl::Status status = CheckMayOpen(identity); !status.ok()) return status;
  const bool streamed = options_.retain_versions == 0 && !identity.mirrored.has_value();
  identity.stream_to = streamed ? std::max<uint32_t>(options_.stream_to, 1) : 0;
  const absl::Status has_room =
      streamed ? MakeRoomToStream(identity, plan, changes)
               : MakeRoom(absl::StrCat(identity.model, "/", identity.number), TotalBytes(plan), changes);
  if (!has_room.ok()) return has_room;
  const uint64_t chunk_bytes = identity.mirrored.value_or(Mirrored{options_.chunk_bytes}).chunk_bytes;
  auto version = std::make_shared<Version>(std::move(identity), std::move(plan), chunk_bytes, memory_);
  models_[version->model()][version->key()] = version;
  records_[version->model()].trainer_epoch = version->key().epoch;
  changes.push_back(version);
  return version;
}

absl::Status VersionStore::Commit(Version& version, std::optional<uint64_t> expected_digest) {
  Changes changes;
  {
    absl::MutexLock lock(&mutex_);
    if (absl::Status status = version.SetCommitted(expected_digest); !status.ok()) return status;
    records_[version.model()] = {version.number(), version.key().epoch};
    ++outcomes_[version.model()].committed;
    changes.push_back(version.shared_from_this());
    Versions& versions = models_[version.model()];
    // A streamed version stays until the next one.
    RetireBeyond(std::max<uint32_t>(options_.retain_versions, 1), versions, changes);
    ForgetOld(versions);
  }
  version.WakeReady();
  observers_.Tell(changes);
  if (prefault_ != nullptr) {
    prefault_->Submit([this, committed = version.shared_from_this(), opened = opened_.load()] {
      PrefaultForNext(*committed, opened);
    });
  }
  return absl::OkStatus();
}

void VersionStore::PrefaultForNext(const Version& version, uint64_t opened) {
  if (version.state() != v1::VERSION_STATE_COMMITTED || !version.HoldsData()) return;
  if (reserved_bytes() + version.bytes() > options_.memory_budget_bytes) return;
  memory_->Prefault(version.slab_plan(), [&] { return opened_ != opened; });
}

bool VersionStore::Abort(Version& version, std::string reason) {
  if (!version.SetAborted(std::move(reason))) return false;
  {
    absl::MutexLock lock(&mutex_);
    ++outcomes_[version.model()].aborted;
    ForgetOld(models_[version.model()]);
  }
  version.WakeReady();
  observers_.Tell({version.shared_from_this()});
  return true;
}

absl::Status VersionStore::ReleaseInstalls(Version& version) {
  if (absl::Status status = version.SetReleased(); !status.ok()) return status;
  observers_.Tell({version.shared_from_this()});
  return absl::OkStatus();
}

void VersionStore::RetireBeyond(uint32_t retained, Versions& versions, Changes& changes) {
  // Versions without bytes do not displace versions that have some.
  uint32_t committed = 0;
  uint32_t empty = 0;
  std::for_each(versions.rbegin(), versions.rend(), [&](const auto& entry) {
    const std::shared_ptr<Version>& version = entry.second;
    if (version->state() != v1::VERSION_STATE_COMMITTED) return;
    if (++(version->bytes() > 0 ? committed : empty) <= retained) return;
    version->SetRetired();
    changes.push_back(version);
  });
}

void VersionStore::ForgetOld(Versions& versions) {
  auto is_past = [](const std::shared_ptr<Version>& version) {
    return !version->HoldsData() && version->state() != v1::VERSION_STATE_OPEN;
  };
  size_t past =
      std::count_if(versions.begin(), versions.end(), [&](const auto& entry) { return is_past(entry.second); });
  for (auto it = versions.begin(); it != versions.end() && past > options_.remembered_versions;) {
    const bool forget = is_past(it->second);
    past -= forget ? 1 : 0;
    it = forget ? versions.erase(it) : std::next(it);
  }
}

absl::StatusOr<std::shared_ptr<Version>> VersionStore::Find(const std::string& model,
                                                            const v1::VersionSelector& selector) const {
  absl::MutexLock lock(&mutex_);
  const auto found = models_.find(model);
  if (found == models_.end()) {
    return absl::NotFoundError(
        absl::StrCat("no version of a model named '", Printable(model), "' was ever pushed here"));
  }
  return FindVersion(found->second, model, selector);
}

std::vector<uint64_t> VersionStore::CommittedBetween(const std::string& model, VersionKey after,
                                                     VersionKey before) const {
  absl::MutexLock lock(&mutex_);
  const auto found = models_.find(model);
  return found == models_.end() ? std::vector<uint64_t>() : refit::CommittedBetween(found->second, after, before);
}

std::shared_ptr<Version> VersionStore::FindKey(const std::string& model, const VersionKey& key) const {
  absl::MutexLock lock(&mutex_);
  const auto versions = models_.find(model);
  if (versions == models_.end()) return nullptr;
  const auto found = versions->second.find(key);
  return found == versions->second.end() ? nullptr : found->second;
}

uint64_t VersionStore::Epoch(const std::string& model) const { return Record(model).trainer_epoch; }

absl::StatusOr<std::shared_ptr<Version>> VersionStore::FindNumber(const std::string& model, uint64_t number) const {
  v1::VersionSelector selector;
  selector.set_number(number);
  return Find(model, selector);
}

std::vector<std::shared_ptr<Version>> VersionStore::List(const std::string& model) const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<Version>> list;
  for (const auto& [name, versions] : models_) {
    if (!model.empty() && name != model) continue;
    for (const auto& [key, version] : versions) list.push_back(version);
  }
  return list;
}

std::map<std::string, VersionStore::ModelRecord> VersionStore::Records() const {
  absl::MutexLock lock(&mutex_);
  return records_;
}

VersionStore::ModelRecord VersionStore::Record(const std::string& model) const {
  absl::MutexLock lock(&mutex_);
  const auto record = records_.find(model);
  return record == records_.end() ? ModelRecord() : record->second;
}

void VersionStore::ForgetAfter(const std::string& model, const VersionKey& newest, const std::string& reason) {
  Changes changes;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = models_.find(model);
    if (found == models_.end()) return;
    Versions& versions = found->second;
    for (auto it = versions.upper_bound(newest); it != versions.end(); it = versions.erase(it)) {
      const std::shared_ptr<Version>& version = it->second;
      if (!version->SetAborted(reason) && version->state() == v1::VERSION_STATE_COMMITTED) version->SetRetired();
      changes.push_back(version);
    }
    records_[model] = {newest.number, newest.epoch};
  }
  for (const std::shared_ptr<Version>& version : changes) version->WakeReady();
  observers_.Tell(changes);
}

void VersionStore::RestoreRecord(const std::string& model, const ModelRecord& record) {
  absl::MutexLock lock(&mutex_);
  models_.try_emplace(model);
  ModelRecord& known = records_[model];
  if (record.trainer_epoch > known.trainer_epoch) known = record;
  if (record.trainer_epoch < known.trainer_epoch) return;
  known.newest_committed = std::max(known.newest_committed, record.newest_committed);
}

void VersionStore::RestoreVersion(std::shared_ptr<Version> version) {
  RestoreRecord(version->model(), {version->number(), version->identity().trainer_epoch});
  absl::MutexLock lock(&mutex_);
  Versions& versions = models_[version->model()];
  versions[version->key()] = std::move(version);
}

uint64_t VersionStore::reserved_bytes() const {
  absl::MutexLock lock(&mutex_);
  return ReservedLocked();
}

}  // namespace refit

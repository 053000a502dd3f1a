#include "server/spool/spool.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/net/wall_clock.h"

namespace refit {
namespace {

constexpr std::chrono::seconds kRetryInterval{30};

double Seconds(Spool::Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

std::string Text(Spool::Clock::duration duration) { return absl::StrFormat("%.3f", Seconds(duration)); }

}  // namespace

Spool::Spool(SpoolFolder folder, uint64_t max_chunk_bytes, VersionStore& store, EventLog log, HeldInstalls held)
    : folder_(std::move(folder)), max_chunk_bytes_(max_chunk_bytes), held_(held), store_(store), log_(std::move(log)) {}

absl::StatusOr<std::unique_ptr<Spool>> Spool::Open(const std::string& folder, SpoolOwner owner,
                                                   uint64_t max_chunk_bytes, VersionStore& store, EventLog log,
                                                   HeldInstalls held) {
  absl::StatusOr<SpoolFolder> opened = SpoolFolder::Open(folder, owner);
  if (!opened.ok()) return opened.status();
  std::unique_ptr<Spool> spool =
      absl::WrapUnique(new Spool(*std::move(opened), max_chunk_bytes, store, std::move(log), held));
  if (absl::Status status = spool->Load(); !status.ok()) return status;
  spool->observer_ = store.ObserveAll([self = spool.get()](const std::shared_ptr<Version>& version) {
    const std::lock_guard lock(self->mutex_);
    self->changed_.insert(version->model());
    self->changes_.notify_all();
  });
  {
    const std::lock_guard lock(spool->mutex_);
    spool->ended_ = false;
  }
  spool->thread_ = std::thread([self = spool.get()] { self->Run(); });
  return spool;
}

Spool::~Spool() {
  Stop(Clock::time_point::min());
  if (thread_.joinable()) thread_.join();
  store_.StopObserving(observer_);
}

void Spool::Stop(Clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  deadline_ = std::min(deadline_, deadline);
  changes_.notify_all();
  changes_.wait(lock, [this] { return ended_; });
}

// Loading at the start.

absl::Status Spool::Load() {
  if (absl::Status status = RestoreRecords(); !status.ok()) return status;
  const absl::StatusOr<SpoolFolder::Contents> contents = folder_.List();
  if (!contents.ok()) return contents.status();
  for (const std::string& name : contents->leftovers) {
    const absl::Status removed = folder_.Remove(name);
    log_.Warning("half-written file removed from the spool",
                 {{"file", Printable(name)}, {"result", removed.ok() ? "removed" : removed.ToString()}});
  }
  for (const std::string& name : contents->foreign) {
    log_.Warning("a file in the spool is none of its own, and left alone", {{"file", Printable(name)}});
  }
  std::map<std::string, std::map<VersionKey, Found>> models;
  for (const std::string& name : contents->versions) {
    absl::StatusOr<SpooledFile> file = SpooledFile::Open(folder_.PathOf(name));
    if (file.ok() && !SpoolFolder::IsNameOf(name, file->model(), file->key())) {
      file = absl::InvalidArgumentError(
          absl::StrCat("it says that it is version ", Printable(file->model()), "/", file->key().number));
    }
    // A file that this process cannot open or map for lack of resources is not damaged.
    if (absl::IsResourceExhausted(file.status())) return file.status();
    if (!file.ok()) {
      Quarantine(name, file.status());
      continue;
    }
    const VersionKey key = file->key();
    auto& files = models[file->model()];
    if (files.count(key) != 0) {
      Quarantine(name, absl::AlreadyExistsError(absl::StrCat("it is the same version as ", files.at(key).name)));
      continue;
    }
    files.emplace(key, Found{name, *std::move(file)});
  }
  for (auto& [model, files] : models) LoadModel(std::move(files));
  return absl::OkStatus();
}

absl::Status Spool::RestoreRecords() {
  absl::StatusOr<SpoolFolder::Records> records = folder_.ReadRecords();
  if (!records.ok()) return records.status();
  for (const auto& [model, record] : *records) store_.RestoreRecord(model, record);
  saved_ = *std::move(records);
  return absl::OkStatus();
}

void Spool::LoadModel(std::map<VersionKey, Found> files) {
  uint32_t served = 0;
  for (auto it = files.rbegin(); it != files.rend(); ++it) {
    if (served < store_.options().retain_versions) {
      served += LoadVersion(it->second) ? 1 : 0;
      continue;
    }
    const std::string& name = it->second.name;
    const absl::Status removed = folder_.Remove(name);
    log_.Info("spooled version retired", {{"file", name}, {"result", removed.ok() ? "removed" : removed.ToString()}});
  }
}

bool Spool::LoadVersion(const Found& found) {
  const auto& [name, file] = found;
  const Clock::time_point begin = Clock::now();
  if (file.summary().chunk_bytes() > max_chunk_bytes_) {
    log_.Warning("spooled version cannot be served: its chunks are larger than --max-message-bytes allows",
                 {{"file", name}, {"chunk_bytes", absl::StrCat(file.summary().chunk_bytes())}});
    store_.RestoreRecord(file.model(), {file.key().number, file.key().epoch});
    const std::lock_guard lock(mutex_);
    files_[file.model()][file.key()] = {name, file.summary().bytes()};
    return false;
  }
  absl::StatusOr<std::shared_ptr<Version>> version = file.Load(held_ == HeldInstalls::kStay);
  if (!version.ok()) {
    Quarantine(name, version.status());
    return false;
  }
  const uint64_t bytes = (*version)->bytes();
  const double gigabytes = static_cast<double>(bytes) / 1e9;
  const Clock::duration took = Clock::now() - begin;
  log_.Info("spooled version checked and served",
            {{"version", Printable((*version)->Label())},
             {"bytes", absl::StrCat(bytes)},
             {"seconds", Text(took)},
             {"gigabytes_per_second", absl::StrFormat("%.2f", gigabytes / Seconds(took))}});
  store_.RestoreVersion(*std::move(version));
  const std::lock_guard lock(mutex_);
  files_[file.model()][file.key()] = {name, bytes};
  return true;
}

void Spool::Quarantine(const std::string& name, const absl::Status& why) {
  const absl::Status renamed = folder_.Quarantine(name);
  log_.Warning("spooled version refused",
               {{"file", Printable(name)},
                {"error", std::string(why.message())},
                {"result", renamed.ok() ? absl::StrCat("renamed to ", name, ".bad") : renamed.ToString()}});
}

// Writing new versions.

void Spool::Run() {
  while (true) {
    const std::set<std::string> models = NextModels();
    if (models.empty()) break;
    for (const std::string& model : models) Report(model, Update(model));
  }
  const std::lock_guard lock(mutex_);
  ended_ = true;
  changes_.notify_all();
}

// Waits for models with changes. Returns none at the end.
std::set<std::string> Spool::NextModels() {
  std::unique_lock lock(mutex_);
  const auto has_work = [this] { return stopping_ || !changed_.empty(); };
  if (errors_.empty()) {
    changes_.wait(lock, has_work);
  } else if (!changes_.wait_for(lock, kRetryInterval, has_work)) {
    for (const auto& [model, error] : errors_) changed_.insert(model);
  }
  return std::exchange(changed_, {});
}

absl::Status Spool::Update(const std::string& model) {
  const std::vector<std::shared_ptr<Version>> versions = store_.List(model);
  RemoveRetired(model, versions);  // this may free the space that the rest needs
  if (absl::Status status = SaveRecords(); !status.ok()) return status;
  const auto newest = std::find_if(versions.rbegin(), versions.rend(),
                                   [](const auto& version) { return version->state() == v1::VERSION_STATE_COMMITTED; });
  if (newest == versions.rend() || (*newest)->is_spooled()) return absl::OkStatus();
  if (absl::Status status = Write(*newest); !status.ok()) return status;
  RemoveRetired(model, versions);
  return SaveRecords();
}

absl::Status Spool::Write(const std::shared_ptr<Version>& version) {
  const Clock::time_point begin = Clock::now();
  const std::string name = SpoolFolder::NameOf(version->model(), version->key());
  const absl::Status status = WriteSpooledVersion(version, folder_.PathOf(name), [this] { return MayGoOn(); });
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("version ", version->Label(),
                                                    " is not on disk, and would not "
                                                    "outlive the service: ",
                                                    status.message()));
  }
  {
    const std::lock_guard lock(mutex_);
    files_[version->model()][version->key()] = {name, version->bytes()};
  }
  version->SetSpooled(true);
  log_.Info("version spooled", {{"version", Printable(version->Label())},
                                {"bytes", absl::StrCat(version->bytes())},
                                {"seconds", Text(Clock::now() - begin)}});
  return absl::OkStatus();
}

// The newest file always stays: no newer one replaces it yet.
void Spool::RemoveRetired(const std::string& model, const std::vector<std::shared_ptr<Version>>& versions) {
  std::set<VersionKey> kept;
  for (const std::shared_ptr<Version>& version : versions) {
    if (version->state() == v1::VERSION_STATE_COMMITTED) kept.insert(version->key());
  }
  const Files files = FilesOf(model);
  if (!files.empty()) kept.insert(files.rbegin()->first);
  std::set<VersionKey> removed;
  for (const auto& [key, file] : files) {
    if (kept.count(key) != 0) continue;
    if (folder_.Remove(file.name).ok()) removed.insert(key);  // otherwise it is tried again next time
  }
  for (const std::shared_ptr<Version>& version : versions) {
    if (removed.count(version->key()) != 0) version->SetSpooled(false);
  }
  const std::lock_guard lock(mutex_);
  for (const VersionKey& key : removed) files_[model].erase(key);
}

Spool::Files Spool::FilesOf(const std::string& model) const {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(model);
  return found == files_.end() ? Files() : found->second;
}

// Version numbers count once they are on disk: a lost version may be pushed again.
absl::Status Spool::SaveRecords() {
  SpoolFolder::Records records = store_.Records();
  for (auto& [model, record] : records) {
    const Files files = FilesOf(model);
    const VersionKey newest = files.empty() ? VersionKey() : files.rbegin()->first;
    record.newest_committed = newest.epoch == record.trainer_epoch ? newest.number : 0;
    const auto saved = saved_.find(model);
    if (saved == saved_.end() || saved->second.trainer_epoch != record.trainer_epoch) continue;
    record.newest_committed = std::max(record.newest_committed, saved->second.newest_committed);
  }
  if (records == saved_) return absl::OkStatus();
  if (absl::Status status = folder_.WriteRecords(records); !status.ok()) return status;
  saved_ = std::move(records);
  return absl::OkStatus();
}

void Spool::Report(const std::string& model, const absl::Status& status) {
  if (absl::IsCancelled(status)) return log_.Warning("spooling ended early", {{"reason", status.ToString()}});
  const std::string error(status.message());
  bool is_new = false;
  bool was_there = false;
  {
    const std::lock_guard lock(mutex_);
    if (status.ok()) {
      was_there = errors_.erase(model) != 0;
    } else {
      is_new = std::exchange(errors_[model], error) != error;
      last_error_at_ns_ = UnixNanos();
    }
  }
  if (was_there) log_.Info("the spool can be written again", {{"model", Printable(model)}});
  if (is_new) {
    log_.Write(LogLevel::kError, "the spool cannot be written; the service goes on from memory",
               {{"model", Printable(model)}, {"error", error}});
  }
}

bool Spool::MayGoOn() const {
  const std::lock_guard lock(mutex_);
  return !stopping_ || Clock::now() < deadline_;
}

v1::SpoolInfo Spool::Info() const {
  v1::SpoolInfo info;
  info.set_folder(folder_.path());
  std::map<std::string, bool> newest_is_spooled;
  for (const std::shared_ptr<Version>& version : store_.List("")) {
    if (version->state() == v1::VERSION_STATE_COMMITTED) newest_is_spooled[version->model()] = version->is_spooled();
  }
  for (const auto& [model, spooled] : newest_is_spooled) info.set_pending(info.pending() + (spooled ? 0 : 1));
  const std::lock_guard lock(mutex_);
  for (const auto& [model, files] : files_) {
    info.set_versions(info.versions() + static_cast<uint32_t>(files.size()));
    for (const auto& [key, file] : files) info.set_bytes(info.bytes() + file.bytes);
  }
  if (!errors_.empty()) info.set_last_error(errors_.begin()->second);
  info.set_last_error_at_ns(last_error_at_ns_);
  return info;
}

}  // namespace refit

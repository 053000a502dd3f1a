#include "refit/worker.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/net/status.h"
#include "common/tensor/slab.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than any process lives, short enough for any clock.
constexpr std::chrono::milliseconds kNoTimeout = std::chrono::hours(24 * 365);

// "host/pid", for people: containers may have the same.
std::string DefaultName() {
  std::array<char, 256> host = {};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return absl::StrCat(host[0] != '\0' ? host.data() : "worker", "/", getpid());
}

// As far as their digests are known: that of an open version is not.
bool MayBeTheSame(const v1::VersionSummary& a, const v1::VersionSummary& b) {
  return !a.has_manifest_digest() || !b.has_manifest_digest() || a.manifest_digest() == b.manifest_digest();
}

WorkerOptions WithName(WorkerOptions options) {
  if (options.pull.worker.empty()) options.pull.worker = DefaultName();
  return options;
}

}  // namespace

// Where a pull puts a version. Refuses one that may not be installed before any byte of it comes.
class Worker::Stage final : public TensorSink {
 public:
  Stage(Worker& worker, Way way, StagedVersion& staged) : worker_(worker), way_(way), staged_(staged) {}

  // As its header told it; number 0 if none came.
  const v1::VersionSummary& version() const { return version_; }
  bool is_installed() const { return is_installed_; }
  // It may not be installed.
  bool was_refused() const { return was_refused_; }

  absl::Status Begin(const v1::VersionSummary& version, const std::vector<TensorPart>& tensors) override {
    version_ = version;
    is_installed_ = worker_.IsInstalled(version);
    if (is_installed_) return absl::AlreadyExistsError("in use already");
    const absl::Status status = worker_.CheckMayInstall(version, way_);
    was_refused_ = !status.ok();
    if (was_refused_) return status;
    if (!worker_.options_.place) slabs_ = Slabs(SlabPlan::Of(tensors));
    worker_.pool_.TrimTo(slabs_.plan().capacity());
    staged_.tensors.reserve(tensors.size());
    for (const TensorPart& part : tensors) staged_.tensors.push_back({part, {}, nullptr});
    return absl::OkStatus();
  }

  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override {
    if (worker_.options_.in_place && !std::exchange(torn_, true)) worker_.SetTorn(version_);
    StagedVersion::Tensor& tensor = staged_.tensors[index];
    const absl::StatusOr<absl::Span<std::byte>> bytes = Memory(index);
    if (!bytes.ok()) return Annotate(bytes.status(), absl::StrCat("memory for tensor ", tensor.part.ToString()));
    tensor.bytes = *bytes;
    return *bytes;
  }

  bool Adopt(size_t index, std::shared_ptr<Buffer> mapped) override {
    if (worker_.options_.place) return false;
    staged_.tensors[index].bytes = mapped->span();
    staged_.tensors[index].owner = std::move(mapped);
    return true;
  }

  absl::Status Done(size_t) override { return absl::OkStatus(); }

 private:
  absl::StatusOr<absl::Span<std::byte>> Memory(size_t index) {
    StagedVersion::Tensor& tensor = staged_.tensors[index];
    if (worker_.options_.place) return worker_.options_.place(tensor.part);
    absl::StatusOr<std::shared_ptr<Buffer>> owner =
        slabs_.Get(index, [this](size_t size) { return worker_.pool_.Get(size); });
    if (!owner.ok()) return owner.status();
    tensor.owner = *std::move(owner);
    return tensor.owner->span();
  }

  Worker& worker_;
  const Way way_;
  StagedVersion& staged_;
  Slabs slabs_;
  v1::VersionSummary version_;
  bool is_installed_ = false;
  bool was_refused_ = false;
  bool torn_ = false;
};

Worker::Worker(std::unique_ptr<Subscriber> subscriber, WorkerOptions options)
    : subscriber_(std::move(subscriber)),
      options_(WithName(std::move(options))),
      pool_(std::numeric_limits<int64_t>::max()) {}

Worker::~Worker() { Stop(); }

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(const ChannelOptions& channel, WorkerOptions options) {
  if (!options.install) return absl::InvalidArgumentError("a worker needs an install function");
  if (options.in_place && !options.place) {
    return absl::InvalidArgumentError("a worker that receives in place needs a place function, which gives the memory");
  }
  absl::StatusOr<std::unique_ptr<Subscriber>> subscriber = Subscriber::Connect(channel);
  if (!subscriber.ok()) return subscriber.status();
  auto worker = absl::WrapUnique(new Worker(*std::move(subscriber), std::move(options)));
  worker->BePresent();
  return worker;
}

absl::Status Worker::CheckNotForked() const { return stop_.get_deleter().guard.Check(absl::StrCat("worker ", name())); }

void Worker::Stop() {
  if (!CheckNotForked().ok()) return;
  stop_->Stop();
  subscriber_->Cancel();
  const std::lock_guard lock(mutex_);
  changed_->notify_all();
}

std::optional<uint64_t> Worker::installed() const {
  if (!CheckNotForked().ok()) return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (!installed_.has_value()) return std::nullopt;
  return installed_->version();
}

bool Worker::of_other_run() const {
  if (!CheckNotForked().ok()) return false;
  const std::lock_guard lock(mutex_);
  return other_run_;
}

bool Worker::IsInstalled(const v1::VersionSummary& version) const {
  const std::lock_guard lock(mutex_);
  return installed_.has_value() && !other_run_ && KeyOf(*installed_) == KeyOf(version) &&
         MayBeTheSame(*installed_, version);
}

bool Worker::torn() const {
  if (!CheckNotForked().ok()) return false;
  const std::lock_guard lock(mutex_);
  return torn_.has_value();
}

VersionKey Worker::Present() const {
  if (installed_.has_value()) return KeyOf(*installed_);
  return torn_.has_value() ? KeyOf(*torn_) : VersionKey();
}

absl::Status Worker::WaitForVersion(uint64_t version, std::chrono::milliseconds timeout,
                                    std::optional<uint64_t> trainer_epoch) const {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  std::unique_lock lock(mutex_);
  const auto is_of_run = [&] {
    if (trainer_epoch.has_value()) return installed_->trainer_epoch() == *trainer_epoch;
    return !other_run_ && installed_->trainer_epoch() >= newest_epoch_;
  };
  const auto is_there = [&] { return installed_.has_value() && installed_->version() >= version && is_of_run(); };
  const bool in_time = changed_->wait_for(lock, timeout, [&] { return is_there() || stop_->stopped(); });
  if (is_there()) return absl::OkStatus();
  if (in_time) return absl::CancelledError(absl::StrCat("worker ", name(), " was stopped"));
  return absl::DeadlineExceededError(
      absl::StrCat("worker ", name(), ": version ", version, " was not installed within ", timeout.count(), " ms; ",
                   installed_.has_value() ? Describe(KeyOf(*installed_)) : std::string("none"), " is in use",
                   other_run_ ? ", and is of another run, which this service never had" : ""));
}

absl::Status Worker::Follow(const std::function<bool()>& done) {
  Backoff backoff(options_.first_pause, options_.longest_pause);
  while (true) {
    if (absl::Status status = CheckNotForked(); !status.ok()) return status;
    const absl::Status status = FollowStream(backoff, done);
    if (status.ok() || stop_->stopped()) return absl::OkStatus();
    Tell(status);
    if (!backoff.Wait(*stop_)) return absl::OkStatus();
  }
}

void Worker::Tell(const absl::Status& status) const {
  if (options_.on_error) options_.on_error(status);
}

// As long as the watch lasts. A new one begins with the state of every version, so that nothing is missed.
absl::Status Worker::FollowStream(Backoff& backoff, const std::function<bool()>& done) {
  const std::unique_ptr<VersionWatch> watch =
      subscriber_->StartWatch({.model = options_.pull.model, .worker = options_.pull.worker});
  if (!BePresent()) ReportAgain();
  while (true) {
    absl::StatusOr<v1::VersionSummary> version = watch->Next(kNoTimeout);
    if (!version.ok()) return version.status();
    Heard(*version);
    if (!IsDue(*version)) {
      LookAtOtherRun(*version);
      continue;
    }
    if (absl::Status status = RefitFollowing(*watch, *std::move(version)); !status.ok()) return status;
    backoff.Reset();
    if (done && done()) return absl::OkStatus();
  }
}

void Worker::Heard(const v1::VersionSummary& version) {
  const std::lock_guard lock(mutex_);
  newest_epoch_ = std::max<uint64_t>(newest_epoch_, version.trainer_epoch());
}

// An open version is staged while it is still pushed, except in place: it might yet be aborted.
bool Worker::IsDue(const v1::VersionSummary& version) const {
  const bool is_open = version.state() == v1::VERSION_STATE_OPEN && !options_.in_place;
  if (version.state() != v1::VERSION_STATE_COMMITTED && !is_open) return false;
  const std::lock_guard lock(mutex_);
  const VersionKey key = KeyOf(version);
  if (torn_.has_value()) return LeavesItsRun() || !(key < KeyOf(*torn_));
  return highest_ < key;
}

absl::Status Worker::RefitFollowing(VersionWatch& watch, v1::VersionSummary version) {
  absl::StatusOr<StagedVersion> staged = StagedVersion{};
  while (true) {
    // Written over the version in use, it cannot wait for its release later.
    if (options_.in_place && version.installs_held()) {
      absl::StatusOr<v1::VersionSummary> next = AwaitRelease(watch, KeyOf(version));
      if (!next.ok()) return next.status();
      version = *std::move(next);
      continue;
    }
    const bool newest = version.state() == v1::VERSION_STATE_COMMITTED && !options_.in_place;
    staged = StageFollowing(newest ? Wanted() : Exactly(version));
    if (!staged.ok()) return IsOfThisVersion(staged.status()) ? absl::OkStatus() : staged.status();
    if (!staged->version.installs_held() || options_.in_place) break;
    absl::StatusOr<v1::VersionSummary> next = AwaitRelease(watch, KeyOf(staged->version));
    if (!next.ok()) return next.status();
    if (KeyOf(*next) == KeyOf(staged->version)) break;
    version = *std::move(next);
  }
  return InstallFollowing(*staged);
}

absl::StatusOr<StagedVersion> Worker::StageFollowing(const Wanted& wanted) {
  const std::lock_guard lock(refit_mutex_);
  return StageVersion(wanted, Way::kFollow);
}

// A version that was aborted, or is not to be had any more, is no reason to begin anew: others come.
bool Worker::IsOfThisVersion(const absl::Status& status) const {
  if (torn()) return false;
  if (status.code() == absl::StatusCode::kAborted) return true;
  if (status.code() != absl::StatusCode::kFailedPrecondition && status.code() != absl::StatusCode::kNotFound) {
    return false;
  }
  Tell(status);
  return true;
}

absl::Status Worker::InstallFollowing(StagedVersion& staged) {
  const std::lock_guard lock(refit_mutex_);
  if (!IsDue(staged.version)) return absl::OkStatus();  // a call was quicker
  const VersionKey version = KeyOf(staged.version);
  const absl::Status status = Install(staged);
  if (status.ok() || torn()) return status;
  Tell(status);  // once: the next version may do better
  const std::lock_guard state_lock(mutex_);
  highest_ = std::max(highest_, version);
  return absl::OkStatus();
}

// The version once it is released, or a newer one that was committed meanwhile.
absl::StatusOr<v1::VersionSummary> Worker::AwaitRelease(VersionWatch& watch, const VersionKey& version) {
  while (true) {
    absl::StatusOr<v1::VersionSummary> event = watch.Next(kNoTimeout);
    if (!event.ok()) return event.status();
    const bool released = KeyOf(*event) == version && !event->installs_held();
    const bool superseded = version < KeyOf(*event) && event->state() == v1::VERSION_STATE_COMMITTED;
    if (released || superseded) return event;
  }
}

absl::Status Worker::CheckMayInstall(const v1::VersionSummary& version, Way way) const {
  if (way == Way::kForward && version.installs_held()) {
    return absl::FailedPreconditionError(
        absl::StrCat("version ", version.version(), " may not be installed before its trainer says so"));
  }
  if (way == Way::kBack) return CheckBack(version);
  const std::lock_guard lock(mutex_);
  if (LeavesItsRun()) return absl::OkStatus();
  const VersionKey present = Present();
  const VersionKey offered = KeyOf(version);
  const bool differs = installed_.has_value() && offered == present && !MayBeTheSame(*installed_, version);
  if (differs || (other_run_ && !(present < offered))) return OtherRun(version);
  if (offered < present) {
    return absl::FailedPreconditionError(absl::StrCat(Describe(offered), " is older than ", Describe(present),
                                                      ", which is in use; go back with RollBack only"));
  }
  const bool leaps = options_.max_version_step != 0 && present.number != 0 && offered.epoch == present.epoch &&
                     offered.number - present.number > options_.max_version_step;
  if (leaps) {
    return absl::FailedPreconditionError(absl::StrCat(Describe(offered), " is more than ", options_.max_version_step,
                                                      " beyond ", Describe(present), ", which is in use"));
  }
  return absl::OkStatus();
}

absl::Status Worker::CheckBack(const v1::VersionSummary& version) const {
  const std::lock_guard lock(mutex_);
  if (!previous_.has_value() || MayBeTheSame(*previous_, version)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("worker ", name(), " cannot go back: the service has another ",
                                                    Describe(KeyOf(version)), " than the one that was in use"));
}

absl::StatusOr<StagedVersion> Worker::StageVersion(const Wanted& wanted, Way way) {
  PullOptions pull = options_.pull;
  pull.version = wanted.number;
  pull.trainer_epoch = wanted.epoch;
  {
    const std::lock_guard lock(mutex_);
    if (installed_.has_value()) {
      pull.installed = installed_->version();
      pull.installed_epoch = installed_->trainer_epoch();
    }
  }
  StagedVersion staged;
  Stage stage(*this, way, staged);
  absl::StatusOr<PullResult> result = subscriber_->Pull(pull, stage);
  if (stage.is_installed()) {
    const std::lock_guard lock(mutex_);
    if (installed_.has_value()) staged.version = *installed_;
    return staged;
  }
  // An aborted version is the trainer's affair.
  if (result.status().code() == absl::StatusCode::kAborted && !torn()) return result.status();
  if (!result.ok() && stage.was_refused() && way != Way::kBack) {
    const bool was_other_run = of_other_run();
    ReportAgain();  // which tells what the service knows of the one in use
    if (of_other_run() != was_other_run) return StageVersion(wanted, way);
  }
  if (!result.ok()) {
    v1::VersionSummary version = stage.version();
    if (version.version() == 0) version.set_version(wanted.number.value_or(0));
    return Failed(version, result.status());
  }
  staged.version = std::move(result->version);
  staged.skipped = std::move(result->skipped);
  staged.not_mapped = std::move(result->not_mapped);
  staged.stage_time = result->elapsed;
  if (!options_.in_place) Report(staged.version, v1::WORKER_PHASE_STAGED, absl::OkStatus(), result->elapsed);
  return staged;
}

absl::Status Worker::Install(StagedVersion& staged) {
  const v1::VersionSummary version = staged.version;
  const std::chrono::nanoseconds stage_time = staged.stage_time;
  const Clock::time_point begin = Clock::now();
  if (absl::Status status = options_.install(staged); !status.ok()) {
    return Failed(version,
                  Annotate(status, absl::StrCat("worker ", name(), ": install of version ", version.version())));
  }
  SetInstalled(version);
  Report(version, v1::WORKER_PHASE_INSTALLED, absl::OkStatus(), stage_time, Clock::now() - begin);
  return absl::OkStatus();
}

absl::StatusOr<v1::VersionSummary> Worker::RefitNow(const Wanted& wanted, Way way) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  const std::lock_guard lock(refit_mutex_);
  if (stop_->stopped()) return absl::CancelledError(absl::StrCat("worker ", name(), " was stopped"));
  BePresent();
  absl::StatusOr<StagedVersion> staged = StageVersion(wanted, way);
  if (!staged.ok()) return staged.status();
  v1::VersionSummary summary = staged->version;
  if (IsInstalled(summary)) return summary;
  if (absl::Status status = Install(*staged); !status.ok()) return status;
  return summary;
}

absl::StatusOr<v1::VersionSummary> Worker::Refit(std::optional<uint64_t> version,
                                                 std::optional<uint64_t> trainer_epoch) {
  return RefitNow({version, trainer_epoch}, Way::kForward);
}

absl::StatusOr<v1::VersionSummary> Worker::RollBack() {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  std::optional<v1::VersionSummary> previous;
  {
    const std::lock_guard lock(mutex_);
    previous = previous_;
  }
  if (!previous.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("worker ", name(), " cannot go back: no version was in use before the present one"));
  }
  return RefitNow(Exactly(*previous), Way::kBack);
}

absl::Status Worker::Failed(const v1::VersionSummary& version, const absl::Status& status) {
  if (version.version() != 0 && !stop_->stopped()) {
    Report(version, torn() ? v1::WORKER_PHASE_TORN : v1::WORKER_PHASE_FAILED, status);
  }
  return status;
}

void Worker::SetTorn(const v1::VersionSummary& version) {
  {
    const std::lock_guard lock(mutex_);
    if (installed_.has_value()) previous_ = std::exchange(installed_, std::nullopt);
    torn_ = version;
  }
  Report(version, v1::WORKER_PHASE_TORN);
}

void Worker::SetInstalled(const v1::VersionSummary& version) {
  const std::lock_guard lock(mutex_);
  if (installed_.has_value()) previous_ = installed_;
  installed_ = version;
  torn_.reset();
  highest_ = std::max(highest_, KeyOf(version));
  newest_epoch_ = std::max<uint64_t>(newest_epoch_, version.trainer_epoch());
  other_run_ = told_other_run_ = false;
  changed_->notify_all();
}

bool Worker::BePresent() {
  {
    const std::lock_guard lock(presence_mutex_);
    if (presence_ != nullptr && presence_->IsAlive()) return false;
    presence_ = subscriber_->StartPresence(options_.pull.model, options_.pull.worker);
  }
  ReportAgain();
  return true;
}

// A report that does not arrive changes nothing here: the next one says more, and a new watch says all.
bool Worker::Report(const v1::VersionSummary& version, v1::WorkerPhase phase, const absl::Status& status,
                    std::chrono::nanoseconds stage, std::chrono::nanoseconds install) {
  v1::ReportWorkerRequest report;
  report.set_model(options_.pull.model);
  report.set_worker(options_.pull.worker);
  report.set_version(version.version());
  report.set_trainer_epoch(version.trainer_epoch());
  if (version.has_manifest_digest()) report.set_manifest_digest(version.manifest_digest());
  report.set_phase(phase);
  if (!status.ok()) report.set_error(status.ToString());
  report.set_stage_ns(static_cast<uint64_t>(stage.count()));
  report.set_install_ns(static_cast<uint64_t>(install.count()));
  const absl::StatusOr<bool> foreign = subscriber_->Report(report);
  if (!foreign.ok() && !stop_->stopped()) Tell(foreign.status());
  return foreign.value_or(false);
}

void Worker::ReportAgain() {
  std::optional<v1::VersionSummary> installed;
  std::optional<v1::VersionSummary> torn;
  {
    const std::lock_guard lock(mutex_);
    installed = installed_;
    torn = torn_;
  }
  if (torn.has_value()) SetOtherRun(Report(*torn, v1::WORKER_PHASE_TORN));
  if (installed.has_value()) SetOtherRun(Report(*installed, v1::WORKER_PHASE_INSTALLED));
}

void Worker::SetOtherRun(bool other_run) {
  const std::lock_guard lock(mutex_);
  if (other_run_ == other_run) return;
  other_run_ = other_run;
  told_other_run_ = false;
  if (LeavesItsRun()) highest_ = {};  // nothing of the new run was tried
}

absl::Status Worker::OtherRun(const v1::VersionSummary& offered) const {
  const VersionKey present = Present();
  return absl::FailedPreconditionError(absl::StrCat(
      Describe(KeyOf(offered)), KeyOf(offered) < present ? " is older than " : " has other bytes than ",
      Describe(present), ", which is in use: worker ", name(), " has ", Describe(present),
      " of another run, which this service never had; it stays with that until a larger number or a larger "
      "trainer_epoch comes, or takes what is offered with accept_new_run (refit follow --accept-new-run)"));
}

// The service offers what would not be taken: told once. Or it has got the one in use after all.
void Worker::LookAtOtherRun(const v1::VersionSummary& offered) {
  absl::Status status;
  bool has_it = false;
  {
    const std::lock_guard lock(mutex_);
    if (!other_run_ || offered.state() != v1::VERSION_STATE_COMMITTED) return;
    has_it = installed_.has_value() && KeyOf(*installed_) == KeyOf(offered) && MayBeTheSame(*installed_, offered);
    if (!has_it && !LeavesItsRun() && !std::exchange(told_other_run_, true)) status = OtherRun(offered);
  }
  if (has_it) ReportAgain();
  if (!status.ok()) Tell(status);
}

}  // namespace refit

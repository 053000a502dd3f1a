#include "client/worker.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/net/status.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than any process lives, short enough for any clock.
constexpr std::chrono::milliseconds kNoTimeout = std::chrono::hours(24 * 365);

// "host/pid", unlike any other worker of a fleet.
std::string DefaultName() {
  std::array<char, 256> host = {};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return absl::StrCat(host[0] != '\0' ? host.data() : "worker", "/", getpid());
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

  uint64_t version() const { return version_; }
  bool is_installed() const { return is_installed_; }

  absl::Status Begin(const v1::VersionSummary& version, const std::vector<TensorPart>& tensors) override {
    version_ = version.version();
    is_installed_ = worker_.installed() == version_;
    if (is_installed_) return absl::AlreadyExistsError("in use already");
    if (absl::Status status = worker_.CheckMayInstall(version, way_); !status.ok()) return status;
    worker_.pool_.TrimTo(version.bytes());
    staged_.tensors.reserve(tensors.size());
    for (const TensorPart& part : tensors) staged_.tensors.push_back({part, {}, nullptr});
    return absl::OkStatus();
  }

  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override {
    if (worker_.options_.in_place && !std::exchange(torn_, true)) worker_.SetTorn(version_);
    StagedVersion::Tensor& tensor = staged_.tensors[index];
    const absl::StatusOr<absl::Span<std::byte>> bytes = Memory(tensor);
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
  absl::StatusOr<absl::Span<std::byte>> Memory(StagedVersion::Tensor& tensor) {
    if (worker_.options_.place) return worker_.options_.place(tensor.part);
    absl::StatusOr<std::shared_ptr<Buffer>> owner = worker_.pool_.Get(tensor.part.ByteSize());
    if (!owner.ok()) return owner.status();
    tensor.owner = *std::move(owner);
    return tensor.owner->span();
  }

  Worker& worker_;
  const Way way_;
  StagedVersion& staged_;
  uint64_t version_ = 0;
  bool is_installed_ = false;
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
  return absl::WrapUnique(new Worker(*std::move(subscriber), std::move(options)));
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

bool Worker::torn() const {
  if (!CheckNotForked().ok()) return false;
  const std::lock_guard lock(mutex_);
  return torn_ != 0;
}

absl::Status Worker::WaitForVersion(uint64_t version, std::chrono::milliseconds timeout) const {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  std::unique_lock lock(mutex_);
  const auto is_there = [&] { return installed_.has_value() && installed_->version() >= version; };
  const bool in_time = changed_->wait_for(lock, timeout, [&] { return is_there() || stop_->stopped(); });
  if (is_there()) return absl::OkStatus();
  if (in_time) return absl::CancelledError(absl::StrCat("worker ", name(), " was stopped"));
  return absl::DeadlineExceededError(absl::StrCat(
      "worker ", name(), ": version ", version, " was not installed within ", timeout.count(), " ms; ",
      installed_.has_value() ? absl::StrCat("version ", installed_->version()) : std::string("none"), " is in use"));
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
      subscriber_->StartWatch(options_.pull.model, std::nullopt, options_.pull.worker);
  ReportAgain();
  while (true) {
    absl::StatusOr<v1::VersionSummary> version = watch->Next(kNoTimeout);
    if (!version.ok()) return version.status();
    if (!IsDue(*version)) continue;
    if (absl::Status status = RefitFollowing(*watch, *std::move(version)); !status.ok()) return status;
    backoff.Reset();
    if (done && done()) return absl::OkStatus();
  }
}

// An open version is staged while it is still pushed, except in place: it might yet be aborted.
bool Worker::IsDue(const v1::VersionSummary& version) const {
  const bool is_open = version.state() == v1::VERSION_STATE_OPEN && !options_.in_place;
  if (version.state() != v1::VERSION_STATE_COMMITTED && !is_open) return false;
  const std::lock_guard lock(mutex_);
  return torn_ != 0 ? version.version() >= torn_ : version.version() > highest_;
}

absl::Status Worker::RefitFollowing(VersionWatch& watch, v1::VersionSummary version) {
  absl::StatusOr<StagedVersion> staged = StagedVersion{};
  while (true) {
    // Written over the version in use, it cannot wait for its release later.
    if (options_.in_place && version.installs_held()) {
      absl::StatusOr<v1::VersionSummary> next = AwaitRelease(watch, version.version());
      if (!next.ok()) return next.status();
      version = *std::move(next);
      continue;
    }
    const bool newest = version.state() == v1::VERSION_STATE_COMMITTED && !options_.in_place;
    staged = StageFollowing(newest ? std::nullopt : std::optional(version.version()));
    if (!staged.ok()) return IsOfThisVersion(staged.status()) ? absl::OkStatus() : staged.status();
    if (!staged->version.installs_held() || options_.in_place) break;
    absl::StatusOr<v1::VersionSummary> next = AwaitRelease(watch, staged->version.version());
    if (!next.ok()) return next.status();
    if (next->version() == staged->version.version()) break;
    version = *std::move(next);
  }
  return InstallFollowing(*staged);
}

absl::StatusOr<StagedVersion> Worker::StageFollowing(std::optional<uint64_t> version) {
  const std::lock_guard lock(refit_mutex_);
  return StageVersion(version, Way::kFollow);
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
  const uint64_t version = staged.version.version();
  const absl::Status status = Install(staged);
  if (status.ok() || torn()) return status;
  Tell(status);  // once: the next version may do better
  const std::lock_guard state_lock(mutex_);
  highest_ = std::max(highest_, version);
  return absl::OkStatus();
}

// The version once it is released, or a newer one that was committed meanwhile.
absl::StatusOr<v1::VersionSummary> Worker::AwaitRelease(VersionWatch& watch, uint64_t version) {
  while (true) {
    absl::StatusOr<v1::VersionSummary> event = watch.Next(kNoTimeout);
    if (!event.ok()) return event.status();
    const bool released = event->version() == version && !event->installs_held();
    const bool superseded = event->version() > version && event->state() == v1::VERSION_STATE_COMMITTED;
    if (released || superseded) return event;
  }
}

absl::Status Worker::CheckMayInstall(const v1::VersionSummary& version, Way way) const {
  if (way == Way::kForward && version.installs_held()) {
    return absl::FailedPreconditionError(
        absl::StrCat("version ", version.version(), " may not be installed before its trainer says so"));
  }
  if (way == Way::kBack) return absl::OkStatus();
  const std::lock_guard lock(mutex_);
  const uint64_t present = installed_.has_value() ? installed_->version() : torn_;
  if (version.version() < present) {
    return absl::FailedPreconditionError(absl::StrCat("version ", version.version(), " is older than version ", present,
                                                      ", which is in use; go back with RollBack only"));
  }
  if (options_.max_version_step != 0 && present != 0 && version.version() - present > options_.max_version_step) {
    return absl::FailedPreconditionError(absl::StrCat("version ", version.version(), " is more than ",
                                                      options_.max_version_step, " beyond version ", present,
                                                      ", which is in use"));
  }
  return absl::OkStatus();
}

absl::StatusOr<StagedVersion> Worker::StageVersion(std::optional<uint64_t> version, Way way) {
  PullOptions pull = options_.pull;
  pull.version = version;
  pull.installed = installed();
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
  if (!result.ok()) return Failed(stage.version() != 0 ? stage.version() : version.value_or(0), result.status());
  staged.version = std::move(result->version);
  staged.skipped = std::move(result->skipped);
  staged.stage_time = result->elapsed;
  if (!options_.in_place) Report(staged.version.version(), v1::WORKER_PHASE_STAGED, absl::OkStatus(), result->elapsed);
  return staged;
}

absl::Status Worker::Install(StagedVersion& staged) {
  const v1::VersionSummary version = staged.version;
  const std::chrono::nanoseconds stage_time = staged.stage_time;
  const Clock::time_point begin = Clock::now();
  if (absl::Status status = options_.install(staged); !status.ok()) {
    return Failed(version.version(),
                  Annotate(status, absl::StrCat("worker ", name(), ": install of version ", version.version())));
  }
  SetInstalled(version);
  Report(version.version(), v1::WORKER_PHASE_INSTALLED, absl::OkStatus(), stage_time, Clock::now() - begin);
  return absl::OkStatus();
}

absl::StatusOr<v1::VersionSummary> Worker::RefitNow(std::optional<uint64_t> version, Way way) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  const std::lock_guard lock(refit_mutex_);
  if (stop_->stopped()) return absl::CancelledError(absl::StrCat("worker ", name(), " was stopped"));
  absl::StatusOr<StagedVersion> staged = StageVersion(version, way);
  if (!staged.ok()) return staged.status();
  v1::VersionSummary summary = staged->version;
  if (installed() == summary.version()) return summary;
  if (absl::Status status = Install(*staged); !status.ok()) return status;
  return summary;
}

absl::StatusOr<v1::VersionSummary> Worker::Refit(std::optional<uint64_t> version) {
  return RefitNow(version, Way::kForward);
}

absl::StatusOr<v1::VersionSummary> Worker::RollBack() {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  std::optional<uint64_t> previous;
  {
    const std::lock_guard lock(mutex_);
    previous = previous_;
  }
  if (!previous.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("worker ", name(), " cannot go back: no version was in use before the present one"));
  }
  return RefitNow(previous, Way::kBack);
}

absl::Status Worker::Failed(uint64_t version, const absl::Status& status) {
  if (version != 0 && !stop_->stopped()) {
    Report(version, torn() ? v1::WORKER_PHASE_TORN : v1::WORKER_PHASE_FAILED, status);
  }
  return status;
}

void Worker::SetTorn(uint64_t version) {
  {
    const std::lock_guard lock(mutex_);
    if (installed_.has_value()) previous_ = installed_->version();
    installed_.reset();
    torn_ = version;
  }
  Report(version, v1::WORKER_PHASE_TORN);
}

void Worker::SetInstalled(const v1::VersionSummary& version) {
  const std::lock_guard lock(mutex_);
  if (installed_.has_value()) previous_ = installed_->version();
  installed_ = version;
  torn_ = 0;
  highest_ = std::max(highest_, version.version());
  changed_->notify_all();
}

// A report that does not arrive changes nothing here: the next one says more, and a new watch says all.
void Worker::Report(uint64_t version, v1::WorkerPhase phase, const absl::Status& status, std::chrono::nanoseconds stage,
                    std::chrono::nanoseconds install) {
  v1::ReportWorkerRequest report;
  report.set_model(options_.pull.model);
  report.set_worker(options_.pull.worker);
  report.set_version(version);
  report.set_phase(phase);
  if (!status.ok()) report.set_error(status.ToString());
  report.set_stage_ns(static_cast<uint64_t>(stage.count()));
  report.set_install_ns(static_cast<uint64_t>(install.count()));
  if (const absl::Status reported = subscriber_->Report(report); !reported.ok() && !stop_->stopped()) Tell(reported);
}

// To a service that may have been restarted, and knows nothing of this worker.
void Worker::ReportAgain() {
  uint64_t installed = 0;
  uint64_t torn = 0;
  {
    const std::lock_guard lock(mutex_);
    if (installed_.has_value()) installed = installed_->version();
    torn = torn_;
  }
  if (torn != 0) Report(torn, v1::WORKER_PHASE_TORN);
  if (installed != 0) Report(installed, v1::WORKER_PHASE_INSTALLED);
}

}  // namespace refit

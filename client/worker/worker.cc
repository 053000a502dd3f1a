#include "refit/worker.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "client/calls/stop_flag.h"
#include "client/worker/backoff.h"
#include "client/worker/follower.h"
#include "client/worker/installed_versions.h"
#include "client/worker/refitter.h"
#include "client/worker/reporter.h"
#include "common/process/process_name.h"
#include "refit/subscriber.h"

namespace refit {
namespace {

WorkerOptions WithName(WorkerOptions options) {
  if (options.pull.worker.empty()) options.pull.worker = HostAndProcess();
  return options;
}

absl::Status Check(const WorkerOptions& options) {
  if (!options.install) return absl::InvalidArgumentError("a worker needs an install function");
  if (options.in_place && !options.place) {
    return absl::InvalidArgumentError("a worker that receives in place needs a place function, which gives the memory");
  }
  return absl::OkStatus();
}

}  // namespace

// The parts of a worker.
class Worker::Impl {
 public:
  Impl(std::unique_ptr<Subscriber> connected, WorkerOptions with_options)
      : subscriber(std::move(connected)), options(WithName(std::move(with_options))) {}

  absl::Status CheckNotForked() const { return guard.Check(absl::StrCat("worker ", options.pull.worker)); }

  const ForkGuard guard;
  const std::unique_ptr<Subscriber> subscriber;
  const WorkerOptions options;
  StopFlag stop;
  InstalledVersions versions{options};
  Reporter reporter{*subscriber, options, versions, stop};
  Refitter refitter{*subscriber, options, versions, reporter, stop};
};

Worker::Worker(OwnedByProcess<Impl> impl) : impl_(std::move(impl)) {}

Worker::~Worker() { Stop(); }

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(const ChannelOptions& channel, WorkerOptions options) {
  if (absl::Status status = Check(options); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Subscriber>> subscriber = Subscriber::Connect(channel);
  if (!subscriber.ok()) return subscriber.status();
  auto impl = MakeOwnedByProcess<Impl>(*std::move(subscriber), std::move(options));
  impl->reporter.BePresent();
  return absl::WrapUnique(new Worker(std::move(impl)));
}

absl::Status Worker::Follow(const std::function<bool()>& done) {
  Backoff backoff(impl_->options.first_pause, impl_->options.longest_pause);
  while (true) {
    if (absl::Status status = impl_->CheckNotForked(); !status.ok()) return status;
    const absl::Status status =
        Follower(*impl_->subscriber, impl_->options, impl_->versions, impl_->reporter, impl_->refitter)
            .Run(backoff, done);
    if (status.ok() || impl_->stop.stopped()) return absl::OkStatus();
    impl_->reporter.Tell(status);
    if (!backoff.Wait(impl_->stop)) return absl::OkStatus();
  }
}

absl::StatusOr<VersionSummary> Worker::Refit(std::optional<uint64_t> version, std::optional<uint64_t> trainer_epoch) {
  if (absl::Status status = impl_->CheckNotForked(); !status.ok()) return status;
  return impl_->refitter.Refit({version, trainer_epoch}, Way::kForward);
}

absl::StatusOr<VersionSummary> Worker::RollBack() {
  if (absl::Status status = impl_->CheckNotForked(); !status.ok()) return status;
  const std::optional<VersionSummary> previous = impl_->versions.previous();
  if (!previous.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("worker ", name(), " cannot go back: no version was in use before the present one"));
  }
  return impl_->refitter.RollBack(*previous);
}

absl::Status Worker::WaitForVersion(uint64_t version, std::chrono::milliseconds timeout,
                                    std::optional<uint64_t> trainer_epoch) const {
  if (absl::Status status = impl_->CheckNotForked(); !status.ok()) return status;
  return impl_->versions.Await(version, timeout, trainer_epoch);
}

std::optional<uint64_t> Worker::installed() const {
  if (impl_->guard.forked()) return std::nullopt;
  const std::optional<VersionSummary> installed = impl_->versions.installed();
  return installed.has_value() ? std::optional(installed->version) : std::nullopt;
}

bool Worker::of_other_run() const { return !impl_->guard.forked() && impl_->versions.of_other_run(); }

bool Worker::torn() const { return !impl_->guard.forked() && impl_->versions.torn().has_value(); }

const std::string& Worker::name() const { return impl_->options.pull.worker; }

void Worker::Stop() {
  if (impl_->guard.forked()) return;
  impl_->stop.Stop();
  impl_->subscriber->Cancel();
  impl_->versions.EndWaits();
}

}  // namespace refit

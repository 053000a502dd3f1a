// An inference worker's weights: each version staged beside the one in use, verified, and installed in one step.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/worker/backoff.h"
#include "common/net/version_key.h"
#include "refit/buffer.h"
#include "refit/fork_guard.h"
#include "refit/subscriber.h"

namespace refit {

// A version that came whole: every chunk, every tensor and the manifest match their digests, and it is committed.
struct StagedVersion {
  v1::VersionSummary version;
  struct Tensor {
    TensorPart part;
    absl::Span<std::byte> bytes;  // row-major; yours to read, and to move elsewhere
    // Keeps `bytes`, and with them the slab of memory that other tensors of the version share; null where
    // WorkerOptions::place gave them.
    std::shared_ptr<Buffer> owner;
  };
  std::vector<Tensor> tensors;  // in manifest order
  // Versions that were committed since the one in use, and that this worker passes over.
  std::vector<uint64_t> skipped;
  // See PullResult::not_mapped.
  std::string not_mapped;
  // How long it took to come.
  std::chrono::nanoseconds stage_time{0};
};

struct WorkerOptions {
  // Model, selection and name. `version` and `installed` are set by the worker. Without a name: host and process.
  PullOptions pull;

  // Puts a staged version into use; called by one thread at a time. It may take its time, say until a batch is through.
  // An error leaves the old version in use, and must have left it so in the engine too. Let go of `tensors` (move what
  // is kept): they may lie in the service's memory.
  std::function<absl::Status(StagedVersion& staged)> install;

  // Memory for a tensor, exactly part.ByteSize() bytes, valid until `install` returns. Unset: the worker's own.
  std::function<absl::StatusOr<absl::Span<std::byte>>(const TensorPart& part)> place;
  // `place` gives the memory in use: there is no room for a second version. From its first byte to the last the worker
  // is torn: it says so to the service, is not ready(), and when a pull fails in between it stays torn, and Follow
  // pulls again until it has a whole version. `install` is then called with everything in its place.
  bool in_place = false;

  // Versions of a run may not leap further than this, so that one forged number cannot shut out all that follow. 0: no
  // limit.
  uint64_t max_version_step = 0;
  // A service that has lost its memory, or a trainer that was started anew without a larger trainer_epoch, offers
  // numbers below the one in use: this worker has a version of another run. It says so, once, and waits. True: it takes
  // what the service offers, whatever its number.
  bool accept_new_run = false;
  // Hears of what went wrong while Follow goes on. From its thread.
  std::function<void(const absl::Status&)> on_error;
  // Pauses of Follow after failures: from the first, doubling, to the longest.
  std::chrono::milliseconds first_pause{200};
  std::chrono::milliseconds longest_pause{5000};
};

// One life of a worker: the service counts it as connected until it is destroyed, whatever it does meanwhile, and tells
// it from others of its name. Within a run of the trainer it goes forward only; it follows a larger trainer_epoch to
// whatever number. Thread-safe; one refit goes on at a time, others wait for it. In a child of a fork
// FAILED_PRECONDITION, and nothing is installed; the parent's worker goes on.
class Worker {
 public:
  // Connects. Errors as refit::Connect; INVALID_ARGUMENT for options that contradict each other.
  static absl::StatusOr<std::unique_ptr<Worker>> Create(const ChannelOptions& channel, WorkerOptions options);
  ~Worker();

  // Stages each new version while it is pushed, and installs it once it is committed, until Stop: then OK. A worker
  // that was busy goes to the newest one, and learns which it skipped. Survives the service's restarts. A version that
  // holds installs (PublishOptions::hold_installs) is staged, and installed once the trainer releases it, unless a
  // newer one comes before. One whose install failed is not tried again. Or until `done`, asked after each install,
  // says so.
  absl::Status Follow(const std::function<bool()>& done = nullptr);

  // Stages and installs the newest committed version, or this one (of this run of the trainer), now; it must not hold
  // installs. What is installed already is not pulled again. FAILED_PRECONDITION if it is older than the one in use
  // (see RollBack), or that is of another run (see accept_new_run). Otherwise errors as Subscriber::Pull, and what
  // `install` says.
  absl::StatusOr<v1::VersionSummary> Refit(std::optional<uint64_t> version = std::nullopt,
                                           std::optional<uint64_t> trainer_epoch = std::nullopt);

  // Installs the version that was in use before the present one, of an earlier run too, while the service retains it;
  // Follow then waits for one that is newer than both. FAILED_PRECONDITION if there was none, or if the service has
  // another under its number.
  absl::StatusOr<v1::VersionSummary> RollBack();

  // Until a version of this number or a later one is in use, of this run of the trainer, or else of the newest that the
  // worker has heard of. DEADLINE_EXCEEDED, naming the one in use, if it does not come: a service that goes silent, or
  // keeps serving what is old, is noticed. CANCELLED after Stop.
  absl::Status WaitForVersion(uint64_t version, std::chrono::milliseconds timeout,
                              std::optional<uint64_t> trainer_epoch = std::nullopt) const;

  // The version in use; nullopt before the first, while torn, and in a child of a fork.
  std::optional<uint64_t> installed() const;
  // What is in use was never had by the service, as far as that is known: see accept_new_run.
  bool of_other_run() const;
  // A whole version is in use.
  bool ready() const { return installed().has_value(); }
  bool torn() const;
  const std::string& name() const { return options_.pull.worker; }

  // Ends Follow, and every call under way, with the old version in use. For good.
  void Stop();

 private:
  Worker(std::unique_ptr<Subscriber> subscriber, WorkerOptions options);
  class Stage;
  absl::Status CheckNotForked() const;

  // What a refit may install: Follow goes forward only, and may wait for a release; a call may go where it is told.
  enum class Way { kFollow, kForward, kBack };

  // What to pull: the newest committed version without a number.
  struct Wanted {
    std::optional<uint64_t> number;
    std::optional<uint64_t> epoch;
  };
  static Wanted Exactly(const v1::VersionSummary& version) { return {version.version(), version.trainer_epoch()}; }

  bool IsInstalled(const v1::VersionSummary& version) const;
  absl::Status FollowStream(Backoff& backoff, const std::function<bool()>& done);
  void Heard(const v1::VersionSummary& version);
  bool IsDue(const v1::VersionSummary& version) const;
  absl::Status RefitFollowing(VersionWatch& watch, v1::VersionSummary version);
  static absl::StatusOr<v1::VersionSummary> AwaitRelease(VersionWatch& watch, const VersionKey& version);
  absl::StatusOr<StagedVersion> StageFollowing(const Wanted& wanted);
  absl::Status InstallFollowing(StagedVersion& staged);
  bool IsOfThisVersion(const absl::Status& status) const;
  absl::StatusOr<v1::VersionSummary> RefitNow(const Wanted& wanted, Way way);
  // With refit_mutex_ held, as Install.
  absl::StatusOr<StagedVersion> StageVersion(const Wanted& wanted, Way way);
  absl::Status Install(StagedVersion& staged);
  absl::Status CheckMayInstall(const v1::VersionSummary& version, Way way) const;
  absl::Status CheckBack(const v1::VersionSummary& version) const;
  absl::Status Failed(const v1::VersionSummary& version, const absl::Status& status);
  void SetTorn(const v1::VersionSummary& version);
  void SetInstalled(const v1::VersionSummary& version);

  // To a service that may have been restarted, and knows nothing of this worker.
  // Tells it all if it does; false if there was no need.
  bool BePresent();
  void ReportAgain();
  // Whether the service never had that version.
  bool Report(const v1::VersionSummary& version, v1::WorkerPhase phase, const absl::Status& status = absl::OkStatus(),
              std::chrono::nanoseconds stage = {}, std::chrono::nanoseconds install = {});
  void SetOtherRun(bool other_run);
  // With mutex_ held: what is in use, or was begun to be written over it, is of another run, and is to be left for it.
  bool LeavesItsRun() const { return other_run_ && options_.accept_new_run; }
  // With mutex_ held: in use, or torn; 0 of 0 before the first.
  VersionKey Present() const;
  absl::Status OtherRun(const v1::VersionSummary& offered) const;
  void LookAtOtherRun(const v1::VersionSummary& offered);
  void Tell(const absl::Status& status) const;

  const std::unique_ptr<Subscriber> subscriber_;
  const WorkerOptions options_;
  // As changed_ below: other threads' waits for it never end in a child of a fork.
  const OwnedByProcess<StopFlag> stop_ = MakeOwnedByProcess<StopFlag>();
  std::mutex refit_mutex_;  // held while a version is staged, and while one is installed
  BufferPool pool_;

  mutable std::mutex mutex_;
  const OwnedByProcess<std::condition_variable> changed_ = MakeOwnedByProcess<std::condition_variable>();
  // Guarded by mutex_.
  std::optional<v1::VersionSummary> installed_;
  std::optional<v1::VersionSummary> previous_;
  std::optional<v1::VersionSummary> torn_;  // the version that is being written over the one in use
  VersionKey highest_;                      // ever installed, or tried in vain: Follow goes only beyond
  uint64_t newest_epoch_ = 0;               // that was heard of
  bool other_run_ = false;                  // the service never had what is in use
  bool told_other_run_ = false;

  std::mutex presence_mutex_;
  std::unique_ptr<WorkerPresence> presence_;  // guarded by presence_mutex_
};

}  // namespace refit

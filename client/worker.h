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
#include "client/backoff.h"
#include "client/subscriber.h"
#include "common/process/fork_guard.h"
#include "common/tensor/buffer.h"

namespace refit {

// A version that came whole: every chunk, every tensor and the manifest match their digests, and it is committed.
struct StagedVersion {
  v1::VersionSummary version;
  struct Tensor {
    TensorPart part;
    absl::Span<std::byte> bytes;    // row-major; yours to read, and to move elsewhere
    std::shared_ptr<Buffer> owner;  // keeps `bytes`; null where WorkerOptions::place gave them
  };
  std::vector<Tensor> tensors;  // in manifest order
  // Versions that were committed since the one in use, and that this worker passes over.
  std::vector<uint64_t> skipped;
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

  // Versions may not leap further than this, so that one forged number cannot shut out all that follow. 0: no limit.
  uint64_t max_version_step = 0;
  // Hears of what went wrong while Follow goes on. From its thread.
  std::function<void(const absl::Status&)> on_error;
  // Pauses of Follow after failures: from the first, doubling, to the longest.
  std::chrono::milliseconds first_pause{200};
  std::chrono::milliseconds longest_pause{5000};
};

// Thread-safe; one refit goes on at a time, others wait for it. In a child of a fork FAILED_PRECONDITION, and nothing
// is installed; the parent's worker goes on.
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

  // Stages and installs the newest committed version, or this one, now; it must not hold installs. What is installed
  // already is not pulled again. FAILED_PRECONDITION if it is older than the one in use: see RollBack. Otherwise errors
  // as Subscriber::Pull, and what `install` says.
  absl::StatusOr<v1::VersionSummary> Refit(std::optional<uint64_t> version = std::nullopt);

  // Installs the version that was in use before the present one, while the service retains it; Follow then waits for
  // one that is newer than both. FAILED_PRECONDITION if there was none.
  absl::StatusOr<v1::VersionSummary> RollBack();

  // Until a version of this number or a later one is in use. DEADLINE_EXCEEDED, naming the one in use, if it does not
  // come: a service that goes silent, or keeps serving what is old, is noticed. CANCELLED after Stop.
  absl::Status WaitForVersion(uint64_t version, std::chrono::milliseconds timeout) const;

  // The version in use; nullopt before the first, while torn, and in a child of a fork.
  std::optional<uint64_t> installed() const;
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

  absl::Status FollowStream(Backoff& backoff, const std::function<bool()>& done);
  bool IsDue(const v1::VersionSummary& version) const;
  absl::Status RefitFollowing(VersionWatch& watch, v1::VersionSummary version);
  static absl::StatusOr<v1::VersionSummary> AwaitRelease(VersionWatch& watch, uint64_t version);
  absl::StatusOr<StagedVersion> StageFollowing(std::optional<uint64_t> version);
  absl::Status InstallFollowing(StagedVersion& staged);
  bool IsOfThisVersion(const absl::Status& status) const;
  absl::StatusOr<v1::VersionSummary> RefitNow(std::optional<uint64_t> version, Way way);
  // With refit_mutex_ held, as Install.
  absl::StatusOr<StagedVersion> StageVersion(std::optional<uint64_t> version, Way way);
  absl::Status Install(StagedVersion& staged);
  absl::Status CheckMayInstall(const v1::VersionSummary& version, Way way) const;
  absl::Status Failed(uint64_t version, const absl::Status& status);
  void SetTorn(uint64_t version);
  void SetInstalled(const v1::VersionSummary& version);
  void Report(uint64_t version, v1::WorkerPhase phase, const absl::Status& status = absl::OkStatus(),
              std::chrono::nanoseconds stage = {}, std::chrono::nanoseconds install = {});
  void ReportAgain();
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
  std::optional<uint64_t> previous_;
  uint64_t torn_ = 0;     // the version that is being written over the one in use; 0: none
  uint64_t highest_ = 0;  // ever installed, or tried in vain: Follow goes only beyond
};

}  // namespace refit

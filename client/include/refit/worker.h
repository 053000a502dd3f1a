// Keeps an inference worker's weights up to date: stages, verifies and installs each version.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "refit/buffer.h"
#include "refit/channel_options.h"
#include "refit/fork_guard.h"
#include "refit/pull.h"
#include "refit/version_summary.h"

namespace refit {

// A complete version: it is committed, and every chunk, every tensor and the manifest match their digests.
struct StagedVersion {
  VersionSummary version;
  struct Tensor {
    TensorPart part;
    absl::Span<std::byte> bytes;  // row-major; the caller may read it and move it elsewhere
    // Keeps `bytes` alive, with the whole slab that other tensors of the version share. Null if WorkerOptions::place
    // provided the memory.
    std::shared_ptr<Buffer> owner;
  };
  std::vector<Tensor> tensors;  // in manifest order
  // Versions committed after the one in use that this worker skips.
  std::vector<uint64_t> skipped;
  // See PullResult::not_mapped.
  std::string not_mapped;
  // See PullResult.
  std::string address;
  uint64_t moved = 0;
  // How long staging took.
  std::chrono::nanoseconds stage_time{0};
  // In which form the bytes came.
  PullTraffic traffic;
  // See PullResult::selection_digest.
  uint64_t selection_digest = 0;
};

struct WorkerOptions {
  // Model, selection and name. The worker sets `version` and `installed`. Default name: host and process.
  PullOptions pull;

  // Puts a staged version into use. Called by one thread at a time. It may take its time, for example wait for the end
  // of a batch. After an error the old version must still be in use, in the engine too. Release `tensors` (move what
  // you keep): they may be in the service's memory.
  std::function<absl::Status(StagedVersion& staged)> install;

  // Provides memory for a tensor, exactly part.ByteSize() bytes, valid until `install` returns. Unset: the worker's
  // own.
  std::function<absl::StatusOr<absl::Span<std::byte>>(const TensorPart& part)> place;
  // `place` provides the memory that is in use, because there is no room for a second version. `install` is called when
  // all tensors are in place.
  //
  // With `deltas`, what has changed since the version in use is first kept apart, and verified whole, digests of all
  // tensors too, while nothing is touched: that takes memory of its size, not the model's. Then it is applied at once.
  // Only meanwhile, until `install` returns, the worker is torn: it reports this to the service, and is not ready().
  // Any error before leaves the version in use as it is; if `install` fails, the changes are taken back. A process that
  // is killed meanwhile leaves parts of two versions in its memory.
  //
  // Where that is not possible, the tensors are written as they come, and the worker is torn from the first byte to the
  // last. If the pull fails meanwhile it stays torn, and Follow pulls again until it has a whole version. So it is with
  // the first version; without a base at the service; if what has changed takes more than a quarter of the tensors'
  // bytes; if `place` returns other memory than for the version in use, or the same memory for two tensors; and where
  // this host's service shares its memory. PullTraffic::base_refused tells why.
  //
  // Nobody may change the memory while a version is staged and installed. If the engine has changed it before, digests
  // tell, and the affected tensors come whole.
  bool in_place = false;

  // Whether only what has changed comes, where the service can tell: then the version in use is read while the next one
  // is staged. It is used as long as somebody, such as the engine, keeps the `owner` of all its tensors, and does not
  // change them. (If they were changed, the affected tensors come again, whole.) Not with `place`, unless it is that of
  // in_place, and not where this host's service shares its memory: there nothing is moved.
  bool deltas = true;
  // The worker itself keeps the tensors of the version in use for that, for an engine that copies them elsewhere. Takes
  // the memory of one more version, all the time; none where the service's memory is mapped.
  bool keep_base = false;
  // Provides the base instead, for an engine that keeps the tensors elsewhere, such as in a file. Called before each
  // pull, also the first, in the thread that pulls; it must not call the worker. Null: there is none. Not with
  // in_place, where the base is the memory in use.
  std::function<std::shared_ptr<const PullBase>()> base;

  // The largest step between versions of a run, so that one forged number cannot block all versions that follow. 0: no
  // limit.
  uint64_t max_version_step = 0;
  // Whether to follow a service that offers numbers below the one in use. That happens if the service has lost its
  // memory, or if the trainer was restarted without a larger trainer_epoch: this worker then has a version of another
  // run. False: the worker reports it once, and waits. True: it takes what the service offers, whatever the number.
  bool accept_new_run = false;
  // Called with errors while Follow continues, in Follow's thread.
  std::function<void(const absl::Status&)> on_error;
  // Follow's pauses after failures: the first one, doubled each time, up to the longest.
  std::chrono::milliseconds first_pause{200};
  std::chrono::milliseconds longest_pause{5000};
};

// One life of a worker. The service counts it as connected until it is destroyed, whatever it does meanwhile, and tells
// it from others of its name. Within a run of the trainer it goes forward only; it follows a larger trainer_epoch to
// whatever number.
//
// Order of calls: Create, then Follow in a thread of yours, or Refit when it suits you, or both. Stop ends it for good.
// Threads: thread-safe; one refit goes on at a time, others wait for it. Before it is destroyed every call must have
// returned: Stop sees to that.
// Ownership: it owns its connection, and the memory that it stages in; what `install` moved out of a StagedVersion may
// outlive it. What the functions of WorkerOptions refer to must outlive the worker.
// Units: bytes; times as their types say.
// Errors of every call, besides those that it names:
//   CANCELLED            Stop was called (Follow returns OK then)
//   FAILED_PRECONDITION  this is a child of a fork: nothing is installed there, and the parent's worker goes on
class Worker {
 public:
  // Connects. INVALID_ARGUMENT for options that contradict each other; otherwise errors as Subscriber::Connect.
  static absl::StatusOr<std::unique_ptr<Worker>> Create(const ChannelOptions& channel, WorkerOptions options);
  ~Worker();

  // Stages each new version while it is pushed, and installs it once it is committed. Returns OK after Stop, or when
  // `done`, called after each install, returns true. A worker that was busy goes to the newest version, and learns
  // which ones it skipped. Follow continues after restarts of the service. A version whose installs are held
  // (PublishOptions::hold_installs) is staged, and installed once the trainer releases it, unless a newer one comes
  // before. A version whose install failed is not tried again. Errors are passed to WorkerOptions::on_error, and Follow
  // continues.
  absl::Status Follow(const std::function<bool()>& done = nullptr);

  // Stages and installs the newest committed version now, or the given one (of the given run of the trainer). A version
  // that is already installed is not pulled again. Returns the version then in use. FAILED_PRECONDITION if installs of
  // the version are held, if it is older than the one in use (see RollBack), if the step is too large (see
  // max_version_step), or if the one in use is of another run (see accept_new_run). Otherwise errors as
  // Subscriber::Pull, and those of `install`.
  absl::StatusOr<VersionSummary> Refit(std::optional<uint64_t> version = std::nullopt,
                                       std::optional<uint64_t> trainer_epoch = std::nullopt);

  // Installs the previous version again, even if it is of an earlier run, while the service retains it. A worker whose
  // last version was applied in place has kept what leads back, and needs no service for it: if the digests of what
  // that makes are the previous version's, which is found out before anything is touched. Follow then waits for a
  // version that is newer than both. FAILED_PRECONDITION if there was none, or if the service has another
  // version with its number. Otherwise errors as Refit.
  absl::StatusOr<VersionSummary> RollBack();

  // Waits until this version or a later one is in use, of this run of the trainer or, by default, of the newest run
  // that the worker knows. DEADLINE_EXCEEDED, naming the version in use, if that takes too long. So a service that is
  // silent, or only serves old versions, is detected.
  absl::Status WaitForVersion(uint64_t version, std::chrono::milliseconds timeout,
                              std::optional<uint64_t> trainer_epoch = std::nullopt) const;

  // The version in use; nullopt before the first, while torn, and in a child of a fork.
  std::optional<uint64_t> installed() const;
  // Whether the service never had the version in use, as far as that is known: see accept_new_run.
  bool of_other_run() const;
  // Whether a whole version is in use.
  bool ready() const { return installed().has_value(); }
  // Whether the version in use is partly overwritten: see in_place.
  bool torn() const;
  const std::string& name() const;

  // Ends Follow and all other calls, with the old version in use. The worker cannot be used again. Any thread may call
  // it.
  void Stop();

 private:
  class Impl;
  explicit Worker(OwnedByProcess<Impl> impl);
  OwnedByProcess<Impl> impl_;
};

}  // namespace refit

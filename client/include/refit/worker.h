// An inference worker's weights: each version staged beside the one in use, verified, and installed in one step.
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

// A version that came whole: every chunk, every tensor and the manifest match their digests, and it is committed.
struct StagedVersion {
  VersionSummary version;
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

  // Stages each new version while it is pushed, and installs it once it is committed, until Stop: then OK. A worker
  // that was busy goes to the newest one, and learns which it skipped. Survives the service's restarts. A version that
  // holds installs (PublishOptions::hold_installs) is staged, and installed once the trainer releases it, unless a
  // newer one comes before. One whose install failed is not tried again. Or until `done`, asked after each install,
  // says so. What goes wrong is told to WorkerOptions::on_error, and Follow goes on.
  absl::Status Follow(const std::function<bool()>& done = nullptr);

  // Stages and installs the newest committed version, or this one (of this run of the trainer), now. What is installed
  // already is not pulled again. Returns the version in use then. FAILED_PRECONDITION if the version holds installs, is
  // older than the one in use (see RollBack), leaps too far (see max_version_step), or if the one in use is of another
  // run (see accept_new_run). Otherwise errors as Subscriber::Pull, and what `install` says.
  absl::StatusOr<VersionSummary> Refit(std::optional<uint64_t> version = std::nullopt,
                                       std::optional<uint64_t> trainer_epoch = std::nullopt);

  // Installs the version that was in use before the present one, of an earlier run too, while the service retains it;
  // Follow then waits for one that is newer than both. FAILED_PRECONDITION if there was none, or if the service has
  // another under its number. Otherwise errors as Refit.
  absl::StatusOr<VersionSummary> RollBack();

  // Until a version of this number or a later one is in use, of this run of the trainer, or else of the newest that the
  // worker has heard of. DEADLINE_EXCEEDED, naming the one in use, if it does not come: a service that goes silent, or
  // keeps serving what is old, is noticed.
  absl::Status WaitForVersion(uint64_t version, std::chrono::milliseconds timeout,
                              std::optional<uint64_t> trainer_epoch = std::nullopt) const;

  // The version in use; nullopt before the first, while torn, and in a child of a fork.
  std::optional<uint64_t> installed() const;
  // What is in use was never had by the service, as far as that is known: see accept_new_run.
  bool of_other_run() const;
  // A whole version is in use.
  bool ready() const { return installed().has_value(); }
  // The version in use was begun to be written over: see in_place.
  bool torn() const;
  const std::string& name() const;

  // Ends Follow, and every call under way, with the old version in use. For good. From any thread.
  void Stop();

 private:
  class Impl;
  explicit Worker(OwnedByProcess<Impl> impl);
  OwnedByProcess<Impl> impl_;
};

}  // namespace refit

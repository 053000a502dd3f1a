// The worker's side: watches versions and pulls them, verified.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "refit/box.h"
#include "refit/buffer.h"
#include "refit/channel_options.h"
#include "refit/layout_rule.h"
#include "refit/tensor_spec.h"
#include "refit/v1/pull.pb.h"
#include "refit/v1/types.pb.h"

namespace refit {

struct PullOptions {
  std::string model = "default";
  // Exactly this version, open or committed, of the newest run that has one of this number. Unset: the newest committed
  // one.
  std::optional<uint64_t> version;
  // Only of this run of the trainer (PublishOptions::trainer_epoch); NOT_FOUND rather than one of another.
  std::optional<uint64_t> trainer_epoch;
  // RE2 pattern to be found in a name. Empty: all tensors.
  std::string filter;
  // Only these names. Empty: all.
  std::vector<std::string> names;
  // Cut tensors into parts; only those bytes come. Rules apply in order, each to what the ones before it left.
  std::vector<LayoutRule> rules;
  // Boxes of single tensors; rules do not apply to them. Selects no tensor: see `names`.
  std::vector<std::pair<std::string, Box>> boxes;
  // Shown in the service's status. Empty: the address.
  std::string worker;
  // Which life of the worker it is, to tell those of one name apart. 0: the subscriber's.
  uint64_t life = 0;
  // A pull that hears nothing for so long ends with DEADLINE_EXCEEDED (a service that waits for its trainer says so
  // every few seconds).
  std::chrono::milliseconds idle_timeout = std::chrono::seconds(60);
  // A pull that is cut, or one of whose chunks came damaged, is resumed where it was: nothing that was verified comes
  // again. It is given up once nothing new has come for so long; zero: at once.
  std::chrono::milliseconds resume_within = std::chrono::seconds(30);
  // The version that is in use, and its trainer_epoch (unset: that of the version pulled): PullResult then tells which
  // ones are skipped.
  std::optional<uint64_t> installed;
  std::optional<uint64_t> installed_epoch;
};

// Where a pull puts tensors, and what it tells on the way. Called from the thread that pulls; a non-OK answer ends the
// pull with that status.
class TensorSink {
 public:
  virtual ~TensorSink() = default;

  // The version and what will come of its tensors, once, before any of it. Allocate here if you like.
  virtual absl::Status Begin(const v1::VersionSummary& version, const std::vector<TensorPart>& tensors) = 0;

  // The memory for tensors[index], exactly its ByteSize(); must stay valid until Done(index). Called once a tensor, in
  // order.
  virtual absl::StatusOr<absl::Span<std::byte>> Place(size_t index) = 0;

  // Offers tensors[index] where the service on this host has it, in place of Place(index): true takes it, and its bytes
  // are there without a copy. It holds on to the service's memory until it is let go of.
  virtual bool Adopt(size_t index, std::shared_ptr<Buffer> mapped) {
    (void)index, (void)mapped;
    return false;
  }

  // tensors[index] is complete and its digest verified. It is not part of a committed version yet: install nothing
  // before the pull returns OK.
  virtual absl::Status Done(size_t index) = 0;

  // `bytes` more were received. For progress; may be called often.
  virtual void Progress(uint64_t bytes) { (void)bytes; }
};

struct PullResult {
  // The committed version; its manifest digest was checked against the tensors received.
  v1::VersionSummary version;
  uint64_t tensors = 0;
  uint64_t bytes = 0;
  // Wall time of the whole pull, and the part of it that waited for the service (wire, conversion, trainer).
  std::chrono::nanoseconds elapsed{0};
  std::chrono::nanoseconds waited{0};
  // How often it was resumed.
  uint64_t resumed = 0;
  // Not empty: the service is on this host, but its memory could not be mapped, and all from there on came over the
  // connection. Says why, naming the limit and its setting if one was hit.
  std::string not_mapped;
  // Versions committed between PullOptions::installed and this one, as far as the service remembers them; ascending.
  std::vector<uint64_t> skipped;
};

// A pulled tensor that owns its memory. Tensors of a version share slabs of memory (see common/tensor/slab.h), each of
// which is let go of with the last of its tensors.
struct PulledTensor {
  TensorPart part;               // the whole tensor unless the pull asked for less
  std::shared_ptr<Buffer> data;  // part.ByteSize() bytes, row-major
};

struct PulledVersion {
  PullResult result;
  std::vector<PulledTensor> tensors;  // in manifest order
};

struct WatchOptions {
  std::string model = "default";
  // Versions up to this number are left out; with `trainer_epoch`, those of this run.
  std::optional<uint64_t> after = std::nullopt;
  // Versions of runs before this one are left out.
  std::optional<uint64_t> trainer_epoch = std::nullopt;
  // As PullOptions'.
  std::string worker = {};
  uint64_t life = 0;
};

// The service counts the worker as connected as long as this lives, and the service. It has no thread: what became of
// it is found out when it is asked. One thread at a time.
class WorkerPresence {
 public:
  virtual ~WorkerPresence() = default;
  // False once the service, or the connection, is gone.
  virtual bool IsAlive() = 0;
};

// The states of a model's versions, as they change. One thread at a time.
class VersionWatch {
 public:
  virtual ~VersionWatch() = default;
  // The next change; first the present state of each version. A slow reader may miss states, never a version's last
  // one. DEADLINE_EXCEEDED, and the watch is over, if nothing changes for so long; UNAVAILABLE when the service ends it
  // or is gone.
  virtual absl::StatusOr<v1::VersionSummary> Next(std::chrono::milliseconds timeout) = 0;
};

// A connection to a service. Thread-safe; pulls may run concurrently. In a child of a fork FAILED_PRECONDITION: the
// parent's connection stays, and what was pulled before keeps its values in both.
class Subscriber {
 public:
  static absl::StatusOr<std::unique_ptr<Subscriber>> Connect(const ChannelOptions& options);
  ~Subscriber();

  // Pulls into `sink`. OK only when every selected tensor came, every chunk, tensor and manifest digest matched, and
  // the version is committed. Errors: as PullService.Pull of pull.proto says; DATA_LOSS, naming the tensor, for a
  // digest that does not match; INTERNAL for a service that breaks the protocol.
  absl::StatusOr<PullResult> Pull(const PullOptions& options, TensorSink& sink);

  // Pulls into host memory of this subscriber's pool: tensors that are let go of make room, already warm, for a later
  // version's. From a service on the same host large tensors are not copied but mapped where it has them (see
  // Transport); let go of them before long, since it cannot use that memory again meanwhile.
  absl::StatusOr<PulledVersion> Pull(const PullOptions& options);

  // Calls `on_event` with the state of each version and with every change, until it returns false (then OK), or the
  // stream fails. `idle_timeout` zero: waits without end for the next change; keepalive pings still notice a dead
  // service.
  absl::Status Watch(const WatchOptions& options, const std::function<bool(const v1::VersionSummary&)>& on_event,
                     std::chrono::milliseconds idle_timeout = std::chrono::milliseconds::zero());

  // The same, to be asked. The service counts this worker as connected as long as it lives.
  std::unique_ptr<VersionWatch> StartWatch(const WatchOptions& options);

  // Shows the service that this worker is there, whatever else it does.
  std::unique_ptr<WorkerPresence> StartPresence(const std::string& model, const std::string& worker);

  // Tells the service how far this worker is; see pull.proto. Without a life it is this subscriber's. True: the service
  // never had that version.
  absl::StatusOr<bool> Report(v1::ReportWorkerRequest report);

  // Ends all pulls and watches of this subscriber with CANCELLED, and every one that is begun later. From any thread.
  void Cancel();

 private:
  struct State;
  class PullRun;
  explicit Subscriber(std::shared_ptr<State> state);
  absl::Status CheckNotForked() const;
  std::shared_ptr<State> state_;  // leases hold it too
};

}  // namespace refit

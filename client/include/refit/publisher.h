// The trainer's client: pushes native tensors to a refit service. Each version is a transaction.
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
#include "refit/box.h"
#include "refit/channel_options.h"
#include "refit/fork_guard.h"
#include "refit/publish_options.h"
#include "refit/tensor_spec.h"
#include "refit/version_push.h"
#include "refit/version_summary.h"

namespace refit {

// A trainer's connection to a service: opens versions, and asks what a trainer wants to know of them and of workers.
//
// Order of calls: any, from Connect until Cancel or the destructor. One publisher serves any number of versions, one
// after the other or at a time.
// Threads: thread-safe; each VersionPush that it opens is used from one thread at a time.
// Ownership: a VersionPush may outlive the publisher.
// After a fork: FAILED_PRECONDITION in the child; the parent's connection stays.
//
// Errors of every call: UNAVAILABLE if the service is gone or cannot be reached; DEADLINE_EXCEEDED if it does not
// answer in time (60 s, unless a call has a timeout of its own); CANCELLED after Cancel; UNAUTHENTICATED or
// PERMISSION_DENIED if the service wants a token or a role that this trainer lacks.
class Publisher {
 public:
  // Connects, and waits until the service answers. INVALID_ARGUMENT for an address or files that cannot be used;
  // UNAVAILABLE, naming address and reason, if there is no service within ChannelOptions::connect_timeout.
  //
  // `streams`: over how many connections each version is pushed, at most 64, for links on which one connection is
  // slower than the link. 0: as many as pay, up to 8; each version finds out whether twice as many as for the one
  // before are worth it. Each connection sends a part of every large tensor, as a rank of a sharded push would; small
  // versions take fewer. Bytes that are appended in pieces may be sent up to the largest tensor's size late: borrowed
  // from their owner so long, or copied if they have none. Not for a sharded trainer, whose ranks are connections
  // already: Open then returns INVALID_ARGUMENT.
  static absl::StatusOr<std::unique_ptr<Publisher>> Connect(const ChannelOptions& options, uint32_t streams = 1);
  ~Publisher();

  // Opens a version of these native tensors, in state-dict order.
  //
  // INVALID_ARGUMENT: a name, shape, dtype, regex or adapter that cannot be used, a tensor that the adapter cannot
  // convert, version 0, or a version that would hold nothing. ALREADY_EXISTS: the number is open or was committed.
  // FAILED_PRECONDITION: it lies below one that was committed, another version of the model is open, or a newer
  // trainer_epoch has taken over. RESOURCE_EXHAUSTED, naming the limit: the service has no room for it.
  absl::StatusOr<std::unique_ptr<VersionPush>> Open(const PublishOptions& options, std::vector<TensorSpec> native);

  // Opens a version of which this rank holds these shards, or joins it: returns once all ranks have. Every rank names
  // all native tensors in the same order, with an empty box where it holds nothing. Together the boxes must tile each
  // tensor; several ranks may hold the same box. See refit/mesh.h for the shards that a mesh position implies. Errors
  // as Open, and: INVALID_ARGUMENT for boxes that do not tile a tensor, or a declaration that differs from other
  // ranks'; DEADLINE_EXCEEDED if ranks do not come; ABORTED if one of them failed.
  absl::StatusOr<std::unique_ptr<VersionPush>> OpenShards(const PublishOptions& options,
                                                          std::vector<TensorPart> shards);

  // Aborts an open version from outside, whoever pushes it. NOT_FOUND; FAILED_PRECONDITION if it is not open.
  absl::StatusOr<VersionSummary> Abort(const std::string& model, uint64_t version, const std::string& reason);

  // Lets workers install a version whose installs are held. NOT_FOUND; FAILED_PRECONDITION if it is aborted or retired.
  absl::StatusOr<VersionSummary> ReleaseInstalls(const std::string& model, uint64_t version);

  // The condition to wait for: at least `workers` workers have staged (or installed) a version, or a later one of the
  // same run, and, with `all`, every connected worker has. Workers that are not connected do not count.
  struct Await {
    std::string model = "default";
    uint64_t version = 0;
    // The run of the version. Unset: the newest run that the service knows.
    std::optional<uint64_t> trainer_epoch = std::nullopt;
    enum class Phase { kStaged, kInstalled } phase = Phase::kInstalled;
    uint32_t workers = 1;
    bool all = false;
    std::chrono::milliseconds timeout = std::chrono::seconds(60);
  };
  // Returns how many workers have it. `gone` gets some workers that the service remembers but that are no longer
  // connected. DEADLINE_EXCEEDED, naming the workers that are behind and why, if the condition does not hold in time;
  // ABORTED if the version was aborted; FAILED_PRECONDITION if a larger trainer_epoch than the given one has taken
  // over; UNAVAILABLE if the service shuts down.
  absl::StatusOr<uint32_t> AwaitWorkers(const Await& await, std::vector<std::string>* gone = nullptr);

  // The values that a restarted trainer must exceed: it takes a larger trainer_epoch and a larger version number, so
  // that no number is used twice. Both are 0 for a model that the service does not know.
  struct LastRun {
    uint64_t trainer_epoch = 0;  // the largest that the service has seen for the model
    uint64_t version = 0;        // the largest number that it knows, in any run
  };
  absl::StatusOr<LastRun> AskLastRun(const std::string& model);

  // How many workers of the model are connected. Errors as AskLastRun.
  absl::StatusOr<int> AskConnectedWorkers(const std::string& model);

  // Ends every push and call of this publisher, and every later one, with CANCELLED. Their versions are aborted. Any
  // thread may call it.
  void Cancel();

 private:
  struct State;
  explicit Publisher(OwnedByProcess<State> state);
  absl::Status CheckNotForked() const;
  OwnedByProcess<State> state_;
};

}  // namespace refit

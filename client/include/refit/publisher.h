// The trainer's side: pushes native tensors to a refit service, one version a transaction.
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
#include "refit/v1/types.pb.h"

namespace refit {

// One version under way. Legal order: Append / Push until every tensor is complete, then Commit or Abort. Destroying it
// before Commit aborts the version. Not thread-safe. In a child of a fork FAILED_PRECONDITION; the parent's push goes
// on.
class VersionPush {
 public:
  ~VersionPush();
  VersionPush(const VersionPush&) = delete;
  VersionPush& operator=(const VersionPush&) = delete;

  // The version as opened: number of HF tensors, bytes, chunk size.
  const v1::VersionSummary& summary() const;
  // The shards declared, one a native tensor.
  const std::vector<TensorPart>& shards() const;
  // Whether another rank sends this shard's bytes: they are then digested here and not sent.
  bool digest_only(size_t index) const;
  // Whether no output needs this shard, as when its tensor is excluded: Append may be left out, and sends nothing.
  bool unneeded(size_t index) const;

  // The next bytes of shard `index` (into the declared list), row-major, at most the rest of it; whole elements. Copied
  // before it returns unless `owner` is given: then the bytes are borrowed, must not change, and `owner` is kept until
  // gRPC has let go of them. An empty shard needs no call. Less than 32 KiB may wait 2 ms for more. The bytes must be
  // readable: memory of uncertain origin is MemoryProbe's to look at before. Errors: OUT_OF_RANGE for more bytes than
  // the tensor has; INVALID_ARGUMENT for a null address; otherwise what the service says of the push (see push.proto),
  // which then is over.
  absl::Status Append(size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner = nullptr);

  // The whole shard of the tensor of this name. NOT_FOUND if it was not declared; INVALID_ARGUMENT unless `bytes` is
  // exactly its size.
  absl::Status Push(absl::string_view name, absl::Span<const std::byte> bytes,
                    std::shared_ptr<const void> owner = nullptr);

  // Commits, once every rank does; the version is visible to workers as a whole, or not at all. FAILED_PRECONDITION,
  // naming a tensor, if one is incomplete; ABORTED if another rank gave up or died.
  absl::StatusOr<v1::VersionSummary> Commit();

  // Gives the version up. Idempotent.
  absl::Status Abort(absl::string_view reason);

 private:
  friend class Publisher;
  struct State;
  explicit VersionPush(OwnedByProcess<State> state);
  OwnedByProcess<State> state_;
};

// A connection to a service. Thread-safe. In a child of a fork FAILED_PRECONDITION; the parent's connection stays.
class Publisher {
 public:
  // Errors as refit::Connect.
  static absl::StatusOr<std::unique_ptr<Publisher>> Connect(const ChannelOptions& options);
  ~Publisher();

  // Opens a version of these native tensors, in state-dict order. Errors as PushService.Push of push.proto says.
  absl::StatusOr<std::unique_ptr<VersionPush>> Open(const PublishOptions& options, std::vector<TensorSpec> native);

  // Opens a version of which this rank holds these shards, or joins it: returns once all ranks have. Every rank names
  // all native tensors in the same order, with an empty box where it holds nothing. Together the boxes must tile each
  // tensor; several ranks may hold the same box. See refit/mesh.h for the shards that a mesh position implies.
  absl::StatusOr<std::unique_ptr<VersionPush>> OpenShards(const PublishOptions& options,
                                                          std::vector<TensorPart> shards);

  // Aborts an open version from outside, whoever pushes it. NOT_FOUND; FAILED_PRECONDITION if it is not open.
  absl::StatusOr<v1::VersionSummary> Abort(const std::string& model, uint64_t version, const std::string& reason);

  // Lets workers install a version that holds installs. NOT_FOUND; FAILED_PRECONDITION if it is aborted or retired.
  absl::StatusOr<v1::VersionSummary> ReleaseInstalls(const std::string& model, uint64_t version);

  // What to wait for: that at least so many workers have staged (or installed) a version or a later one of the same
  // run, and, with `all`, every worker that is connected. Nobody else counts.
  struct Await {
    std::string model = "default";
    uint64_t version = 0;
    // The run that it is of. Unset: the last that the service has heard of.
    std::optional<uint64_t> trainer_epoch = std::nullopt;
    enum class Phase { kStaged, kInstalled } phase = Phase::kInstalled;
    uint32_t workers = 1;
    bool all = false;
    std::chrono::milliseconds timeout = std::chrono::seconds(60);
  };
  // How many workers have it; in `gone`, some that are remembered and not connected any more. DEADLINE_EXCEEDED, naming
  // those that are behind and why, if they do not in time; ABORTED if the version was aborted; FAILED_PRECONDITION if a
  // larger trainer_epoch than the one given has taken over.
  absl::StatusOr<uint32_t> AwaitWorkers(const Await& await, std::vector<std::string>* gone = nullptr);

  // What a trainer that is started anew goes on from: a larger trainer_epoch than this, and, so that nobody is misled
  // by a number that was used before, a larger number. Both 0 of a model that the service does not know.
  struct LastRun {
    uint64_t trainer_epoch = 0;  // the largest that the service has seen of the model
    uint64_t version = 0;        // the largest number that it knows, of any run
  };
  absl::StatusOr<LastRun> AskLastRun(const std::string& model);

  // How many workers of the model are connected. Errors as AskLastRun.
  absl::StatusOr<int> AskConnectedWorkers(const std::string& model);

  // Ends every push and call of this publisher with CANCELLED, and every one that is begun later: their versions are
  // aborted. From any thread.
  void Cancel();

 private:
  struct State;
  explicit Publisher(OwnedByProcess<State> state);
  absl::Status CheckNotForked() const;
  OwnedByProcess<State> state_;
};

}  // namespace refit

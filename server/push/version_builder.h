// Turns native tensors, or a rank's shards of them, into a version: assembles, converts and commits it. Both the wire
// and a trainer in the same process use it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "refit/box.h"
#include "refit/fork_guard.h"
#include "refit/limits.h"
#include "refit/publish_options.h"
#include "refit/tensor_spec.h"
#include "server/process/work_queue.h"
#include "server/store/version_store.h"

namespace refit {

// One rank's access to an open version. Destroying it before the version is committed aborts the version. Not
// thread-safe, but the builders of a version's ranks may work at the same time. The store must outlive it. In a child
// of a fork calls return FAILED_PRECONDITION; the parent's version is not affected.
class VersionBuilder {
 public:
  // Plans the version, and opens or joins it, with this rank's box of every native tensor. Bytes may be appended once
  // all ranks have declared theirs, which is at once for a single rank. Errors: PlanVersion, FindAdapter (as
  // INVALID_ARGUMENT), PythonRegex::Compile, VersionStore::Open; INVALID_ARGUMENT for a rank that is not below world, a
  // box out of bounds, a declaration that differs from the other ranks', or boxes that do not tile a tensor. The
  // version is aborted then, unless the rank is not one of its ranks. RESOURCE_EXHAUSTED for a declaration beyond
  // `limits`.
  static absl::StatusOr<std::unique_ptr<VersionBuilder>> Open(VersionStore& store, const PublishOptions& options,
                                                              std::vector<TensorPart> shards,
                                                              const Limits& limits = Limits());
  static absl::StatusOr<std::unique_ptr<VersionBuilder>> Open(VersionStore& store, const PublishOptions& options,
                                                              std::vector<TensorSpec> native,
                                                              const Limits& limits = Limits());
  ~VersionBuilder();

  // From now on, the queue's threads help to convert large amounts of bytes in Append. The queue must outlive the
  // builder.
  void ConvertWith(WorkQueue& helpers) { helpers_ = &helpers; }

  const std::shared_ptr<Version>& version() const { return version_; }
  // One for each native tensor, in the order of the version's plan.
  const std::vector<TensorPart>& shards() const { return shards_; }
  uint32_t rank() const { return rank_; }
  // Bytes of the shard received so far.
  uint64_t received(size_t index) const { return received_[index]; }

  // Whether no output needs the shard's bytes, for example because the tensor is excluded. They need not be appended.
  bool is_unneeded(size_t index) const { return version_->plan().outputs_of_native[index].empty(); }

  // Whether another rank with the same box sends the shard's bytes. Only once all ranks have declared theirs.
  bool is_digest_only(size_t index) const;

  // Gets memory for the shard's outputs. False while there is no room, which happens only to streamed versions: workers
  // must first pull something (see VersionStore::memory). Errors as Append's.
  absl::StatusOr<bool> HasRoom(size_t index);

  // Appends the shard's bytes from `offset` on, which must be the end of the previous ones (OUT_OF_RANGE for a gap, an
  // overlap or an end beyond the shard); whole elements (INVALID_ARGUMENT). Bytes of a digest-only or unneeded shard
  // are dropped. FAILED_PRECONDITION while ranks are missing. UNAVAILABLE while !HasRoom(index). ABORTED if the version
  // was aborted meanwhile.
  absl::Status Append(size_t index, uint64_t offset, absl::Span<const std::byte> bytes);

  // Passes the tensor digest of a shard that is complete, or digest-only. Required for shards that several ranks may
  // hold. DATA_LOSS if another rank passed a different digest for the same box.
  absl::Status Finish(size_t index, uint64_t digest);

  // Records that this rank commits. The last rank's call commits the version. Returns its state: COMMITTED, or OPEN
  // while other ranks are missing (see Version::WaitForEnd). FAILED_PRECONDITION, naming the first tensor that lacks
  // bytes; the version stays open then.
  absl::StatusOr<v1::VersionSummary> Commit();

  // Returns false, and does nothing, if the version is already committed or aborted.
  bool Abort(absl::string_view reason);

 private:
  VersionBuilder(VersionStore& store, std::shared_ptr<Version> version, uint32_t rank);
  absl::Status Join(std::vector<TensorPart> shards);
  absl::Status CheckNotForked() const;
  // Converts and publishes these bytes, in one or many pieces.
  absl::Status Write(size_t index, uint64_t offset, absl::Span<const std::byte> bytes);
  absl::Status WritePiece(size_t index, uint64_t offset, absl::Span<const std::byte> bytes);
  absl::Status ConvertPiece(size_t index, uint64_t offset, absl::Span<const std::byte> bytes);
  // The memory of an output. Null while a streamed version has no room for it.
  absl::StatusOr<std::shared_ptr<Buffer>> DataFor(size_t output);
  // FAILED_PRECONDITION unless all ranks have joined.
  absl::Status CheckComplete() const;
  absl::Status CheckRange(size_t index, uint64_t offset, uint64_t size) const;
  absl::Status PublishWithoutData();
  // "rank 3: it went away", if several ranks push the version.
  std::string AsRank(absl::string_view what) const;

  const ForkGuard guard_;
  VersionStore& store_;
  WorkQueue* helpers_ = nullptr;
  const std::shared_ptr<Version> version_;
  const uint32_t rank_;
  bool joined_ = false;
  std::vector<TensorPart> shards_;
  std::vector<uint64_t> received_;
  mutable std::optional<std::vector<bool>> digest_only_;  // set once all ranks have declared theirs
};

}  // namespace refit

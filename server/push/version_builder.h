// Turns native tensors, or a rank's shards of them, into a version: assembles, converts, commits. The one way in, for
// the wire and for a trainer in process.
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

// One rank's hand in an open version. Destroying it before the version is committed aborts the version. Not
// thread-safe, but the builders of a version's ranks may work at the same time; the store must outlive it. In a child
// of a fork FAILED_PRECONDITION; the parent's version stays as it is.
class VersionBuilder {
 public:
  // Plans, opens or joins, with this rank's box of every native tensor. Bytes may come once the version's assembly is
  // complete: at once for a single rank. Errors: PlanVersion, FindAdapter (as INVALID_ARGUMENT), PythonRegex::Compile,
  // VersionStore::Open; INVALID_ARGUMENT for a rank that is not below world, a box out of bounds, a declaration that
  // differs from the other ranks', or boxes that do not tile a tensor. The version is aborted then, unless the rank is
  // none of its own.
  // RESOURCE_EXHAUSTED for a declaration beyond `limits`.
  static absl::StatusOr<std::unique_ptr<VersionBuilder>> Open(VersionStore& store, const PublishOptions& options,
                                                              std::vector<TensorPart> shards,
                                                              const Limits& limits = Limits());
  static absl::StatusOr<std::unique_ptr<VersionBuilder>> Open(VersionStore& store, const PublishOptions& options,
                                                              std::vector<TensorSpec> native,
                                                              const Limits& limits = Limits());
  ~VersionBuilder();

  // From now on the queue's threads help with what Append is given, if that is much. The queue must outlive the
  // builder.
  void ConvertWith(WorkQueue& helpers) { helpers_ = &helpers; }

  const std::shared_ptr<Version>& version() const { return version_; }
  // One a native tensor, in the order of the version's plan.
  const std::vector<TensorPart>& shards() const { return shards_; }
  uint32_t rank() const { return rank_; }
  // Bytes of the shard that have come so far.
  uint64_t received(size_t index) const { return received_[index]; }

  // Whether no output needs the shard's bytes, as when the tensor is excluded: they need not come.
  bool is_unneeded(size_t index) const { return version_->plan().outputs_of_native[index].empty(); }

  // Whether the shard's bytes are sent by another rank that holds the same box. Once the assembly is complete.
  bool is_digest_only(size_t index) const;

  // Makes sure that the shard's bytes have a place to go to. False while the memory has no room, which happens only to
  // streamed versions: workers must take something first (see VersionStore::memory). Errors as Append's.
  absl::StatusOr<bool> HasRoom(size_t index);

  // The shard's bytes from `offset` on, which must be where the last ones ended (OUT_OF_RANGE for a gap, an overlap or
  // an end beyond the shard); whole elements (INVALID_ARGUMENT). Those of a digest-only or unneeded shard are dropped.
  // FAILED_PRECONDITION while ranks are missing. UNAVAILABLE while !HasRoom(index). ABORTED if the version was aborted
  // meanwhile.
  absl::Status Append(size_t index, uint64_t offset, absl::Span<const std::byte> bytes);

  // The tensor digest of a shard that is whole, or digest-only: to be told for shards that several ranks may hold.
  // DATA_LOSS if another rank has told a different one for the same box.
  absl::Status Finish(size_t index, uint64_t digest);

  // This rank's word; the version is committed with the last rank's. Says how it stands: COMMITTED, or OPEN while other
  // ranks are missing (see Version::WaitForEnd). FAILED_PRECONDITION, naming the first tensor that lacks bytes; the
  // version stays open then.
  absl::StatusOr<v1::VersionSummary> Commit();

  // False, and nothing happens, once the version is committed or aborted.
  bool Abort(absl::string_view reason);

 private:
  VersionBuilder(VersionStore& store, std::shared_ptr<Version> version, uint32_t rank);
  absl::Status Join(std::vector<TensorPart> shards);
  absl::Status CheckNotForked() const;
  // Converts and publishes these bytes, which may be many.
  absl::Status Write(size_t index, uint64_t offset, absl::Span<const std::byte> bytes);
  absl::Status WritePiece(size_t index, uint64_t offset, absl::Span<const std::byte> bytes);
  absl::Status ConvertPiece(size_t index, uint64_t offset, absl::Span<const std::byte> bytes);
  // The memory of an output; null while a streamed version has no room for it.
  absl::StatusOr<std::shared_ptr<Buffer>> DataFor(size_t output);
  // That all ranks have joined: FAILED_PRECONDITION.
  absl::Status CheckComplete() const;
  absl::Status CheckRange(size_t index, uint64_t offset, uint64_t size) const;
  absl::Status PublishWithoutData();
  // "rank 3: it went away", of a version that several push together.
  std::string AsRank(absl::string_view what) const;

  const ForkGuard guard_;
  VersionStore& store_;
  WorkQueue* helpers_ = nullptr;
  const std::shared_ptr<Version> version_;
  const uint32_t rank_;
  bool joined_ = false;
  std::vector<TensorPart> shards_;
  std::vector<uint64_t> received_;
  mutable std::optional<std::vector<bool>> digest_only_;  // once the assembly is complete
};

}  // namespace refit

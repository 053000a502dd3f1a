// Tracks how the shards of a trainer's ranks make up a version: which rank holds which box, which one sends it, and
// which ones have committed. It holds no bytes; these go through VersionBuilder.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "refit/box.h"

namespace refit {

// Thread-safe.
class RankShards {
 public:
  // `native`, the global tensors, must outlive it.
  RankShards(const std::vector<TensorSpec>& native, uint32_t world) : native_(native), world_(world), ranks_(world) {}

  uint32_t world() const { return world_; }

  // Records the boxes of one rank: a valid box for each native tensor, empty if the rank holds nothing of it. The last
  // rank's call checks that the boxes fit: INVALID_ARGUMENT, naming tensor, box and ranks, for an overlap or a part
  // that no rank holds. ALREADY_EXISTS if the rank has joined already. True for the last rank.
  absl::StatusOr<bool> Join(uint32_t rank, std::vector<Box> boxes) ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasJoined(uint32_t rank) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether all ranks have joined and their boxes fit. Then data may come.
  bool is_complete() const { return complete_; }

  // Once complete: the tensors whose box another rank sends. If several ranks hold the same box, one of them sends it.
  // Boxes are distributed so that all ranks send about the same number of bytes.
  std::vector<size_t> DigestOnly(uint32_t rank) const ABSL_LOCKS_EXCLUDED(mutex_);

  // Checks the digest of a rank's whole shard. DATA_LOSS, naming tensor, box and both ranks, if another rank had a
  // different one for the same box.
  absl::Status CheckDigest(uint32_t rank, size_t tensor, uint64_t digest) ABSL_LOCKS_EXCLUDED(mutex_);

  // Records that a rank commits. True for the last rank.
  bool Commit(uint32_t rank) ABSL_LOCKS_EXCLUDED(mutex_);

  uint32_t joined() const ABSL_LOCKS_EXCLUDED(mutex_);
  uint32_t committed() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The ranks that have not joined yet or, once complete, have not committed.
  std::vector<uint32_t> Missing() const ABSL_LOCKS_EXCLUDED(mutex_);

  // After an abort: returns true once for each rank that had not joined, and so does not know of the abort.
  bool Hear(uint32_t rank) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // The ranks that hold the same box of a tensor.
  struct Holders {
    Box box;
    std::vector<uint32_t> ranks;
    uint32_t sender = 0;
    std::optional<uint64_t> digest;
    uint32_t digest_of = 0;  // the rank that passed it
  };
  struct Rank {
    bool joined = false;
    bool committed = false;
    bool heard = false;
    std::vector<Box> boxes;  // until complete
    // Once complete: index into the tensor's holders; kNone if the rank holds nothing.
    std::vector<uint32_t> holders;
  };

  bool HoldsAll(const Rank& rank) const;
  // kNone if the rank holds nothing, or if only one rank holds everything.
  uint32_t HolderOf(uint32_t rank, size_t tensor) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Group() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckFit(size_t tensor) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ChooseSenders() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::vector<TensorSpec>& native_;
  const uint32_t world_;

  mutable absl::Mutex mutex_;
  std::vector<Rank> ranks_ ABSL_GUARDED_BY(mutex_);
  // One list for each tensor. Empty if a single rank holds everything.
  std::vector<std::vector<Holders>> holders_ ABSL_GUARDED_BY(mutex_);
  uint32_t joined_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t committed_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<bool> complete_{false};  // never reset
};

}  // namespace refit

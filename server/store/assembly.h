// How a version is put together from the shards of a trainer's ranks: who holds which box, who sends it, who has given
// its word. Bookkeeping only; bytes go through VersionBuilder.
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
class Assembly {
 public:
  // `native`, the global tensors, must outlive it.
  Assembly(const std::vector<TensorSpec>& native, uint32_t world) : native_(native), world_(world), ranks_(world) {}

  uint32_t world() const { return world_; }

  // What one rank holds: a valid box a native tensor, empty where it holds nothing. The last rank to come learns
  // whether the boxes fit: INVALID_ARGUMENT, naming tensor, box and ranks, for an overlap or for a part that nobody
  // holds. ALREADY_EXISTS if the rank is there already. True for the last rank.
  absl::StatusOr<bool> Join(uint32_t rank, std::vector<Box> boxes) ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasJoined(uint32_t rank) const ABSL_LOCKS_EXCLUDED(mutex_);
  // All ranks have joined and their boxes fit: data may come.
  bool is_complete() const { return complete_; }

  // Once complete: tensors whose box another rank sends. Of the ranks that hold a box alike one sends it, so that each
  // has about as many bytes to send.
  std::vector<size_t> DigestOnly(uint32_t rank) const ABSL_LOCKS_EXCLUDED(mutex_);

  // The digest of a rank's whole shard. DATA_LOSS, naming tensor, box and both ranks, if another rank had a different
  // one for the same box.
  absl::Status CheckDigest(uint32_t rank, size_t tensor, uint64_t digest) ABSL_LOCKS_EXCLUDED(mutex_);

  // A rank's word that the version may be committed. True for the last of them.
  bool Commit(uint32_t rank) ABSL_LOCKS_EXCLUDED(mutex_);

  uint32_t joined() const ABSL_LOCKS_EXCLUDED(mutex_);
  uint32_t committed() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Ranks that have not joined yet or, once complete, have not committed.
  std::vector<uint32_t> Missing() const ABSL_LOCKS_EXCLUDED(mutex_);

  // After the version was aborted: true once for each rank that had not joined, and so has not heard of it.
  bool Hear(uint32_t rank) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // Ranks that hold the same box of a tensor.
  struct Holders {
    Box box;
    std::vector<uint32_t> ranks;
    uint32_t sender = 0;
    std::optional<uint64_t> digest;
    uint32_t digest_of = 0;  // the rank that told it
  };
  struct Rank {
    bool joined = false;
    bool committed = false;
    bool heard = false;
    std::vector<Box> boxes;  // until complete
    // Once complete: index into the tensor's holders; kNone where the rank holds nothing.
    std::vector<uint32_t> holders;
  };

  bool HoldsAll(const Rank& rank) const;
  // kNone where it holds nothing, or nobody else holds anything.
  uint32_t HolderOf(uint32_t rank, size_t tensor) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Group() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckFit(size_t tensor) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ChooseSenders() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::vector<TensorSpec>& native_;
  const uint32_t world_;

  mutable absl::Mutex mutex_;
  std::vector<Rank> ranks_ ABSL_GUARDED_BY(mutex_);
  // One list a tensor; none at all if a single rank holds everything.
  std::vector<std::vector<Holders>> holders_ ABSL_GUARDED_BY(mutex_);
  uint32_t joined_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t committed_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<bool> complete_{false};  // once true, for good
};

}  // namespace refit

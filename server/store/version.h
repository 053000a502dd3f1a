// One version: its identity, tensors, state and readers.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "common/adapters/plan.h"
#include "common/net/version_key.h"
#include "common/tensor/slab.h"
#include "refit/v1/types.pb.h"
#include "server/store/chunk_progress.h"
#include "server/store/rank_shards.h"
#include "server/store/tensor_memory.h"
#include "server/store/tensor_table.h"
#include "server/store/version_lifecycle.h"
#include "server/store/version_times.h"
#include "server/store/waiters.h"

namespace refit {

// What a version has in common with the one of another service that it mirrors.
struct Mirrored {
  uint64_t chunk_bytes = 0;
  int64_t opened_at_ns = 0;  // there
};

// Properties of a version that never change.
struct VersionIdentity {
  std::string model;
  uint64_t number = 0;
  std::string adapter;
  std::string publisher;
  uint32_t world = 1;  // number of ranks that push it together
  // If not 0, the version is streamed. A tensor gets memory when its bytes arrive. The memory is freed once this many
  // workers have the tensor, and no worker that pulls still needs it.
  uint32_t stream_to = 0;
  // Workers may stage it, but must not install it until the trainer releases it.
  bool hold_installs = false;
  // The trainer's run that it belongs to; see OpenVersion.trainer_epoch.
  uint64_t trainer_epoch = 0;
  // Set for a version whose HF tensors come from another service. It is never streamed.
  std::optional<Mirrored> mirrored;
};

// A tensor of a version that was committed before the service was restarted: its bytes, in memory of another owner, and
// the digests of its chunks.
struct StoredTensor {
  std::shared_ptr<const Buffer> data;
  std::vector<uint64_t> chunk_digests;
};

// One VersionBuilder for each rank fills a version's tensors, and any number of workers read them at the same time. A
// chunk can be read as soon as its last byte is converted, and never changes afterwards. Only VersionStore changes the
// state. Thread-safe.
class Version : public std::enable_shared_from_this<Version> {
 public:
  Version(VersionIdentity identity, VersionPlan plan, uint64_t chunk_bytes, std::shared_ptr<TensorMemory> memory);

  // Makes a version that is committed and spooled, as described by `summary`. `tensors` has one for each of the plan's
  // outputs. The plan has no native tensors. DATA_LOSS, naming both digests, if the manifest's differs from the
  // summary's.
  static absl::StatusOr<std::shared_ptr<Version>> Restore(VersionIdentity identity, VersionPlan plan,
                                                          const v1::VersionSummary& summary,
                                                          std::vector<StoredTensor> tensors);

  const VersionIdentity& identity() const { return identity_; }
  const std::string& model() const { return identity_.model; }
  uint64_t number() const { return identity_.number; }
  VersionKey key() const { return {identity_.trainer_epoch, identity_.number}; }
  const VersionPlan& plan() const { return plan_; }
  uint64_t chunk_bytes() const { return chunk_bytes_; }
  // The layout of its tensors in memory. Without slabs if the version is streamed or restored: each tensor then has
  // memory of its own.
  SlabPlan slab_plan() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The manifest has size() tensors. spec(i) and chunk_count(i) are known from the beginning.
  size_t size() const { return plan_.outputs.size(); }
  const TensorSpec& spec(size_t tensor) const { return plan_.outputs[tensor].planned.hf; }
  uint64_t chunk_count(size_t tensor) const;
  // Sum of all tensors, in bytes.
  uint64_t bytes() const { return bytes_; }
  bool is_streamed() const { return identity_.stream_to > 0; }
  // The share of the memory budget: all its bytes, or, if it is streamed, those of tensors that now have memory.
  uint64_t reserved_bytes() const;
  // The ranks that push it, and their shards.
  RankShards& rank_shards() { return rank_shards_; }
  const RankShards& rank_shards() const { return rank_shards_; }
  // "default/3", for messages.
  std::string Label() const;

  v1::VersionState state() const;
  v1::VersionSummary Summary() const;
  // Whether it was aborted because a later run of its trainer has taken over.
  bool is_fenced() const;
  // Whether its bytes are on disk, and so outlive the process.
  bool is_spooled() const;
  void SetSpooled(bool spooled);
  std::optional<uint64_t> tensor_digest(size_t tensor) const;
  // FAILED_PRECONDITION unless the version is open or committed. Other versions cannot be pulled.
  absl::Status CheckPullable() const;

  // A chunk that is ready, and the owner of its bytes.
  struct Chunk {
    std::shared_ptr<const Buffer> owner;
    absl::Span<const std::byte> bytes;
    uint64_t digest = 0;
    std::optional<uint64_t> tensor_digest;  // only in a tensor's last chunk
  };
  // nullopt: not converted yet. Stays known when the data are dropped.
  std::optional<uint64_t> chunk_digest(size_t tensor, uint64_t chunk) const;
  // nullopt: not converted yet. ABORTED if the version was aborted; FAILED_PRECONDITION if its data were dropped.
  absl::StatusOr<std::optional<Chunk>> GetChunk(size_t tensor, uint64_t chunk) const;

  // A tensor's memory, of which the requested bytes are ready.
  struct Bytes {
    std::shared_ptr<const Buffer> owner;  // null if no bytes were requested and the tensor has no memory yet
    absl::Span<const std::byte> bytes;    // of the whole tensor
  };
  // nullopt if some of the bytes [begin, end) are not converted yet; otherwise as GetChunk.
  absl::StatusOr<std::optional<Bytes>> GetBytes(size_t tensor, uint64_t begin, uint64_t end) const;

  // The whole tensor's memory. UNAVAILABLE until the whole tensor is converted; otherwise errors as GetChunk.
  absl::StatusOr<std::shared_ptr<const Buffer>> GetTensor(size_t tensor) const;

  // Each of these calls `wake` once, from another thread and with no lock held, when its condition holds or the
  // version's state has changed. It returns 0, and never calls `wake`, if that is already so.
  //
  // Waits until GetChunk has this chunk, or GetBytes these bytes.
  uint64_t WaitForChunk(size_t tensor, uint64_t chunk, std::function<void()> wake);
  uint64_t WaitForBytes(size_t tensor, uint64_t begin, uint64_t end, std::function<void()> wake);
  // Waits until all ranks have joined.
  uint64_t WaitForRanks(std::function<void()> wake);
  // Waits until the state changes.
  uint64_t WaitForEnd(std::function<void()> wake);
  // When it returns, `wake` may still be running but is not called again.
  void CancelWait(uint64_t id);

  // For VersionBuilder.
  //
  // A rank declares its shards; see RankShards.
  absl::StatusOr<bool> Join(uint32_t rank, std::vector<Box> boxes);
  // The memory of an output, allocated on first use. `within`: returns null if the budget has no room for it now.
  absl::StatusOr<std::shared_ptr<Buffer>> DataFor(size_t tensor, bool within = false);
  // Makes an empty counter for bytes written to an output.
  ChunkCounts NoChunks(size_t tensor) const;
  // Records bytes that were written and are final. Digests the chunks that are now complete.
  void Publish(size_t tensor, const ChunkCounts& written);
  // Records that native bytes arrived, and were converted since `begin`.
  void AddConverted(uint64_t bytes, VersionTimes::Clock::time_point begin);

  // Each pull holds one. As long as there are readers, a retired version keeps its data until the memory is needed
  // elsewhere, and a streamed version keeps the tensors that they still need.
  class Reader {
   public:
    explicit Reader(std::shared_ptr<Version> version);
    ~Reader();
    Reader(Reader&& other) noexcept = default;
    Reader& operator=(Reader&&) = delete;
    // Begins at `tensor`: an earlier pull has received the tensors before it.
    void StartAt(size_t tensor);
    // The reader has all tensors before `tensor`, or does not want them.
    void Pass(size_t tensor);
    Version* operator->() const { return version_.get(); }
    Version& operator*() const { return *version_; }
    const std::shared_ptr<Version>& version() const { return version_; }

   private:
    std::shared_ptr<Version> version_;
    std::list<size_t>::iterator position_;  // in the version's list
  };

 private:
  friend class VersionStore;

  // For VersionStore, which calls WakeReady once it holds no lock.
  absl::Status SetCommitted(std::optional<uint64_t> expected_digest) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status SetCommittedLocked(std::optional<uint64_t> expected_digest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool SetAborted(std::string reason, bool fenced = false);
  absl::Status SetReleased();
  void WakeReady() ABSL_LOCKS_EXCLUDED(mutex_);
  void SetRetired();
  void DropData();
  bool HoldsData() const;

  uint64_t Wait(const Awaited& awaited, std::function<void()> wake);
  using Wakes = std::vector<Waiters::Wake>;
  Wakes TakeReadyLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsOver(const Awaited& awaited) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckReadable(size_t tensor) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  using Dropped = TensorTable::Dropped;
  void DropDataLocked(Dropped& dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropPassed(Dropped& dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const VersionIdentity identity_;
  const VersionPlan plan_;
  const uint64_t chunk_bytes_;
  const std::shared_ptr<TensorMemory> memory_;
  RankShards rank_shards_;
  uint64_t bytes_ = 0;
  uint64_t declared_bytes_ = 0;
  std::atomic<uint64_t> received_bytes_{0};
  VersionTimes times_;  // guarded by mutex_, except what is thread-safe

  mutable absl::Mutex mutex_;
  VersionLifecycle lifecycle_ ABSL_GUARDED_BY(mutex_);
  bool spooled_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<v1::VersionSummary> restored_ ABSL_GUARDED_BY(mutex_);  // as it was when it was stored
  TensorTable tensors_ ABSL_GUARDED_BY(mutex_);
  Slabs slabs_ ABSL_GUARDED_BY(mutex_);                // memory of the tensors, unless the version is streamed
  std::list<size_t> readers_ ABSL_GUARDED_BY(mutex_);  // the first tensor that each reader still lacks
  size_t kept_from_ ABSL_GUARDED_BY(mutex_) = 0;       // tensors before it were streamed, and their memory freed
  uint64_t manifest_digest_ ABSL_GUARDED_BY(mutex_) = 0;
  Waiters waiters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit

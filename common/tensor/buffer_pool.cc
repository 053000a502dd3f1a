#include "common/tensor/buffer_pool.h"

#include <atomic>
#include <limits>
#include <list>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "common/tensor/memory_block.h"
#include "refit/fork_guard.h"

namespace refit {
namespace {

struct PooledBlock {
  MemoryBlock memory;
  uint64_t given_back = 0;  // order in which blocks were returned, while idle
};

// A list with one block. Moving it to and from the pool needs no allocation, which could fail in a destructor.
using Blocks = std::list<PooledBlock>;

absl::StatusOr<Blocks> AllocateBlocks(size_t capacity, Backing backing, absl::Status& unshared) {
  absl::StatusOr<MemoryBlock> block = MemoryBlock::Allocate(capacity, backing, unshared);
  if (!block.ok()) return block.status();
  Blocks blocks;
  blocks.push_back({*std::move(block)});
  return blocks;
}

}  // namespace

class BufferPool::State {
 public:
  State(uint64_t max_idle_bytes, Fit fit, std::function<void()> on_release, Backing backing,
        std::function<void(const absl::Status&)> on_unshared)
      : max_idle_bytes_(max_idle_bytes),
        largest_fit_(fit == Fit::kLoose ? 4 : 1),
        on_release_(std::move(on_release)),
        backing_(backing),
        on_unshared_(std::move(on_unshared)) {}

  // In a child of a fork, the lock may be held for ever by a thread that exists only in the parent.
  bool forked() const { return guard_.forked(); }

  // An idle block, or a new one. Frees all idle blocks first if memory, descriptors or mappings have run out.
  absl::StatusOr<Blocks> Get(size_t capacity) {
    if (std::optional<Blocks> idle = Take(capacity)) return *std::move(idle);
    absl::Status unshared;
    absl::StatusOr<Blocks> block = AllocateBlocks(capacity, backing_, unshared);
    if ((!block.ok() || !unshared.ok()) && idle_bytes() > 0) {
      TrimTo(0);
      unshared = absl::OkStatus();
      block = AllocateBlocks(capacity, backing_, unshared);
    }
    if (!unshared.ok() && on_unshared_ && !told_unshared_.exchange(true)) on_unshared_(unshared);
    return block;
  }

  // Counts a block as in use. Returns false, without counting it, if that would exceed `max_bytes`.
  bool Count(size_t capacity, uint64_t max_bytes) {
    const std::lock_guard lock(mutex_);
    if (capacity > max_bytes || used_bytes_ > max_bytes - capacity) return false;
    used_bytes_ += capacity;
    return true;
  }

  // Corrects Count: the block of `capacity` became one of `instead`, or, if that is 0, there is none.
  void Recount(size_t capacity, size_t instead) {
    const std::lock_guard lock(mutex_);
    if (instead > 0) idle_.try_emplace(instead);  // allocated now, because returning a block must not allocate
    used_bytes_ += instead;
    used_bytes_ -= capacity;
  }

  void GiveBack(Blocks block, bool reusable) {
    Blocks freed;  // freed after the lock is released, because unmapping takes long
    {
      const std::lock_guard lock(mutex_);
      used_bytes_ -= block.front().memory.capacity();
      if (reusable) {
        idle_bytes_ += block.front().memory.capacity();
        block.front().given_back = ++given_back_;
        Blocks& alike = idle_.find(block.front().memory.capacity())->second;
        alike.splice(alike.end(), block);
        freed = Trim(max_idle_bytes_);
      }
    }
    block.clear();
    if (on_release_) on_release_();
  }

  // Frees idle blocks until idle and used blocks together do not exceed `bytes`.
  void TrimToTotal(uint64_t bytes) {
    Blocks freed;
    const std::lock_guard lock(mutex_);
    freed = Trim(bytes > used_bytes_ ? bytes - used_bytes_ : 0);
  }

  void TrimTo(uint64_t bytes) {
    Blocks freed;
    const std::lock_guard lock(mutex_);
    freed = Trim(bytes);
  }

  uint64_t used_bytes() const {
    const std::lock_guard lock(mutex_);
    return used_bytes_;
  }

  uint64_t idle_bytes() const {
    const std::lock_guard lock(mutex_);
    return idle_bytes_;
  }

 private:
  // An idle block, or none: the smallest that fits, and of several the one returned last, which is most likely in the
  // cache.
  std::optional<Blocks> Take(size_t capacity) {
    const std::lock_guard lock(mutex_);
    for (auto fits = idle_.lower_bound(capacity); fits != idle_.end(); ++fits) {
      if (fits->first / largest_fit_ > capacity) break;
      Blocks& blocks = fits->second;
      if (blocks.empty()) continue;
      idle_bytes_ -= fits->first;
      Blocks taken;
      taken.splice(taken.begin(), blocks, std::prev(blocks.end()));
      return taken;
    }
    return std::nullopt;
  }

  // Removes the oldest blocks, which the caller frees. The caller holds the lock.
  Blocks Trim(uint64_t bytes) {
    Blocks trimmed;
    while (idle_bytes_ > bytes) {
      Blocks* oldest = nullptr;
      for (auto& [capacity, blocks] : idle_) {
        if (blocks.empty()) continue;
        if (oldest == nullptr || blocks.front().given_back < oldest->front().given_back) oldest = &blocks;
      }
      idle_bytes_ -= oldest->front().memory.capacity();
      trimmed.splice(trimmed.end(), *oldest, oldest->begin());
    }
    return trimmed;
  }

  const uint64_t max_idle_bytes_;
  const size_t largest_fit_;  // as a multiple of the requested capacity
  const std::function<void()> on_release_;
  const Backing backing_;
  const std::function<void(const absl::Status&)> on_unshared_;
  std::atomic<bool> told_unshared_{false};
  const ForkGuard guard_;
  // Guards all members below. A std::mutex, because ThreadSanitizer cannot see the locks of an abseil built without it.
  mutable std::mutex mutex_;
  std::map<size_t, Blocks> idle_;  // by capacity; oldest first
  uint64_t given_back_ = 0;
  uint64_t idle_bytes_ = 0;
  uint64_t used_bytes_ = 0;
};

BufferPool::BufferPool(uint64_t max_idle_bytes, Fit fit, std::function<void()> on_release, Backing backing,
                       std::function<void(const absl::Status&)> on_unshared)
    : state_(std::make_shared<State>(max_idle_bytes, fit, std::move(on_release), backing, std::move(on_unshared))) {}

BufferPool::~BufferPool() = default;

absl::StatusOr<std::shared_ptr<Buffer>> BufferPool::Get(size_t size) {
  return Take(size, std::numeric_limits<uint64_t>::max());
}

absl::StatusOr<std::shared_ptr<Buffer>> BufferPool::GetWithin(size_t size, uint64_t max_bytes) {
  absl::StatusOr<std::shared_ptr<Buffer>> buffer = Take(size, max_bytes);
  // Trimmed afterwards: a reused idle block needs no additional room, and a new one is not touched yet.
  if (buffer.ok() && *buffer != nullptr) state_->TrimToTotal(max_bytes);
  return buffer;
}

// Null if the used bytes would exceed `max_bytes`.
absl::StatusOr<std::shared_ptr<Buffer>> BufferPool::Take(size_t size, uint64_t max_bytes) try {
  class PooledBuffer final : public Buffer {
   public:
    PooledBuffer(Blocks block, size_t size, std::weak_ptr<State> pool)
        : Buffer(block.front().memory.data(), size, block.front().memory.PlaceOf(size)),
          block_(std::move(block)),
          pool_(std::move(pool)) {}
    ~PooledBuffer() override {
      const std::shared_ptr<State> pool = pool_.lock();
      if (pool != nullptr && !pool->forked()) pool->GiveBack(std::move(block_), is_reusable());
    }

   private:
    Blocks block_;
    std::weak_ptr<State> pool_;
  };

  if (size > kMaxBufferSize) return OutOfMemory(size);
  const size_t capacity = MemoryBlock::CapacityFor(size);
  if (!state_->Count(capacity, max_bytes)) return nullptr;
  size_t counted = capacity;
  absl::Cleanup uncount = [&] { state_->Recount(counted, 0); };
  absl::StatusOr<Blocks> block = state_->Get(capacity);
  if (!block.ok()) return block.status();
  const size_t got = block->front().memory.capacity();
  state_->Recount(counted, got);
  counted = got;
  auto buffer = std::make_shared<PooledBuffer>(*std::move(block), size, state_);
  std::move(uncount).Cancel();
  return buffer;
} catch (const std::bad_alloc&) {
  return OutOfMemory(size);
}

void BufferPool::TrimTo(uint64_t bytes) { state_->TrimTo(bytes); }

uint64_t BufferPool::used_bytes() const { return state_->used_bytes(); }

uint64_t BufferPool::idle_bytes() const { return state_->idle_bytes(); }

}  // namespace refit

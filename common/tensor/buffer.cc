#include "common/tensor/buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <functional>
#include <limits>
#include <list>
#include <mutex>
#include <new>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace refit {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kHugePage = 2 << 20;
constexpr size_t kMaxSize = std::numeric_limits<ptrdiff_t>::max() - 2 * kHugePage;

absl::Status OutOfMemory(size_t size) {
  return absl::ResourceExhaustedError(absl::StrCat("no memory for a buffer of ", size, " bytes"));
}

struct Release {
  size_t mapped = 0;  // bytes to unmap; 0: from the heap
  void operator()(std::byte* data) const {
    if (mapped > 0) {
      munmap(data, mapped);
    } else {
      std::free(data);
    }
  }
};

struct Block {
  std::unique_ptr<std::byte, Release> data;
  size_t capacity = 0;
};

size_t CapacityFor(size_t size) {
  const size_t unit = size >= kHugePage ? kHugePage : kLine;
  return size == 0 ? unit : (size + unit - 1) / unit * unit;
}

// The kernel aligns to 4 KiB pages only: map one huge page more than needed, then cut both ends.
std::byte* MapHugePages(size_t capacity) {
  void* mapped = mmap(nullptr, capacity + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(mapped);
  const size_t head = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  if (head > 0) munmap(begin, head);
  std::byte* data = begin + head;
  munmap(data + capacity, kHugePage - head);
  madvise(data, capacity, MADV_HUGEPAGE);  // a wish: without it all works, slower
  return data;
}

// Null data if the system has no memory.
Block AllocateBlock(size_t capacity) {
  const bool huge = capacity >= kHugePage;
  auto* data = huge ? MapHugePages(capacity) : static_cast<std::byte*>(std::aligned_alloc(kLine, capacity));
  return {std::unique_ptr<std::byte, Release>(data, Release{huge ? capacity : 0}), capacity};
}

// A list of one block: it moves to and from the pool without an allocation, which a destructor could not afford.
using Blocks = std::list<Block>;

std::optional<Blocks> AllocateBlocks(size_t capacity) {
  Blocks blocks;
  blocks.push_back(AllocateBlock(capacity));
  if (blocks.front().data == nullptr) return std::nullopt;
  return blocks;
}

class OwnBuffer final : public Buffer {
 public:
  OwnBuffer(Block block, size_t size) : Buffer(block.data.get(), size), block_(std::move(block)) {}

 private:
  Block block_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<Buffer>> Buffer::Allocate(size_t size) try {
  if (size > kMaxSize) return OutOfMemory(size);
  Block block = AllocateBlock(CapacityFor(size));
  if (block.data == nullptr) return OutOfMemory(size);
  return std::make_shared<OwnBuffer>(std::move(block), size);
} catch (const std::bad_alloc&) {
  return OutOfMemory(size);
}

class BufferPool::State {
 public:
  State(uint64_t max_idle_bytes, Fit fit, std::function<void()> on_release)
      : max_idle_bytes_(max_idle_bytes), largest_fit_(fit == Fit::kLoose ? 4 : 1), on_release_(std::move(on_release)) {}

  // Counts as handed out; false, and does not, if there were more than `max_bytes` then.
  bool Count(size_t capacity, uint64_t max_bytes) {
    const std::lock_guard lock(mutex_);
    if (capacity > max_bytes || used_bytes_ > max_bytes - capacity) return false;
    used_bytes_ += capacity;
    return true;
  }

  // One of `capacity` that was counted is not there after all, or is another one.
  void Recount(size_t capacity, size_t instead) {
    const std::lock_guard lock(mutex_);
    used_bytes_ += instead;
    used_bytes_ -= capacity;
  }

  // An idle block, or none: of those that fit the smallest, and of these the newest, which is the warmest.
  std::optional<Blocks> Take(size_t capacity) {
    const std::lock_guard lock(mutex_);
    auto best = idle_.end();
    for (auto block = idle_.begin(); block != idle_.end(); ++block) {
      const bool fits = block->capacity >= capacity && block->capacity / largest_fit_ <= capacity;
      if (fits && (best == idle_.end() || block->capacity <= best->capacity)) best = block;
    }
    if (best == idle_.end()) return std::nullopt;
    idle_bytes_ -= best->capacity;
    Blocks taken;
    taken.splice(taken.begin(), idle_, best);
    return taken;
  }

  void GiveBack(Blocks block) {
    Blocks freed;  // after the lock is released: unmapping takes long
    {
      const std::lock_guard lock(mutex_);
      used_bytes_ -= block.front().capacity;
      idle_bytes_ += block.front().capacity;
      idle_.splice(idle_.end(), block);
      freed = Trim(max_idle_bytes_);
    }
    if (on_release_) on_release_();
  }

  // So that what is handed out and what is idle are no more than `bytes` together.
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
  // Takes out the oldest blocks, for the caller to free. Needs the lock.
  Blocks Trim(uint64_t bytes) {
    Blocks trimmed;
    while (idle_bytes_ > bytes) {
      idle_bytes_ -= idle_.front().capacity;
      trimmed.splice(trimmed.end(), idle_, idle_.begin());
    }
    return trimmed;
  }

  const uint64_t max_idle_bytes_;
  const size_t largest_fit_;  // times what is asked for
  const std::function<void()> on_release_;
  // Guards all below. ThreadSanitizer knows it, while it cannot see into an abseil that was built without.
  mutable std::mutex mutex_;
  Blocks idle_;  // oldest first
  uint64_t idle_bytes_ = 0;
  uint64_t used_bytes_ = 0;
};

BufferPool::BufferPool(uint64_t max_idle_bytes, Fit fit, std::function<void()> on_release)
    : state_(std::make_shared<State>(max_idle_bytes, fit, std::move(on_release))) {}

BufferPool::~BufferPool() = default;

absl::StatusOr<std::shared_ptr<Buffer>> BufferPool::Get(size_t size) {
  return Take(size, std::numeric_limits<uint64_t>::max());
}

absl::StatusOr<std::shared_ptr<Buffer>> BufferPool::GetWithin(size_t size, uint64_t max_bytes) {
  absl::StatusOr<std::shared_ptr<Buffer>> buffer = Take(size, max_bytes);
  // Afterwards: an idle block that serves needs no room. What is new is not touched yet.
  if (buffer.ok() && *buffer != nullptr) state_->TrimToTotal(max_bytes);
  return buffer;
}

// Null if more than `max_bytes` were handed out then.
absl::StatusOr<std::shared_ptr<Buffer>> BufferPool::Take(size_t size, uint64_t max_bytes) try {
  class PooledBuffer final : public Buffer {
   public:
    PooledBuffer(Blocks block, size_t size, std::weak_ptr<State> pool)
        : Buffer(block.front().data.get(), size), block_(std::move(block)), pool_(std::move(pool)) {}
    ~PooledBuffer() override {
      if (std::shared_ptr<State> pool = pool_.lock()) pool->GiveBack(std::move(block_));
    }

   private:
    Blocks block_;
    std::weak_ptr<State> pool_;
  };

  if (size > kMaxSize) return OutOfMemory(size);
  const size_t capacity = CapacityFor(size);
  if (!state_->Count(capacity, max_bytes)) return nullptr;
  std::optional<Blocks> block = state_->Take(capacity);
  if (!block.has_value()) block = AllocateBlocks(capacity);
  if (!block.has_value()) {
    state_->TrimTo(0);
    block = AllocateBlocks(capacity);
  }
  state_->Recount(capacity, block.has_value() ? block->front().capacity : 0);
  if (!block.has_value()) return OutOfMemory(size);
  return std::make_shared<PooledBuffer>(*std::move(block), size, state_);
} catch (const std::bad_alloc&) {
  return OutOfMemory(size);
}

void BufferPool::TrimTo(uint64_t bytes) { state_->TrimTo(bytes); }

uint64_t BufferPool::used_bytes() const { return state_->used_bytes(); }

uint64_t BufferPool::idle_bytes() const { return state_->idle_bytes(); }

}  // namespace refit

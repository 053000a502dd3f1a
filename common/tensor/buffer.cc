#include "refit/buffer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/limits/process_limits.h"
#include "refit/fork_guard.h"

namespace refit {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kHugePage = 2 << 20;
constexpr size_t kMaxSize = std::numeric_limits<ptrdiff_t>::max() - 2 * kHugePage;

absl::Status OutOfMemory(size_t size, absl::string_view why = "the system has none left") {
  return absl::ResourceExhaustedError(absl::StrCat("no memory for a buffer of ", size, " bytes: ", why));
}

// Of this process, and not yet unmapped.
std::atomic<uint64_t> mapped_blocks{0};

struct Release {
  size_t mapped = 0;  // bytes to unmap; 0: from the heap
  int fd = -1;        // of the memory, if it is shared
  void operator()(std::byte* data) const {
    if (fd >= 0) close(fd);
    if (mapped > 0) {
      munmap(data, mapped);
      --mapped_blocks;
    } else {
      std::free(data);
    }
  }
};

struct Block {
  std::unique_ptr<std::byte, Release> data;
  size_t capacity = 0;
  uint64_t given_back = 0;  // in which order, while idle

  int fd() const { return data.get_deleter().fd; }
};

size_t CapacityFor(size_t size) {
  const size_t unit = size >= kHugePage ? kHugePage : kLine;
  return size == 0 ? unit : (size + unit - 1) / unit * unit;
}

// Memory that others may map through /proc/<pid>/fd/<fd>, and that never shrinks under them.
absl::StatusOr<int> MakeSharedMemory(size_t capacity) {
  if (absl::Status status = CheckFileSize(capacity); !status.ok()) return status;
  static const bool to_be_had_at_once = IsMemoryCountedStrictly();
  const int fd = memfd_create("refit-tensor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return absl::UnavailableError(WhyNotOpened(errno));
  absl::Status status = CheckDescriptorsLeft(fd);
  const auto size = static_cast<off_t>(capacity);
  const bool made = status.ok() && fchmod(fd, S_IRUSR | S_IWUSR) == 0 && ftruncate(fd, size) == 0 &&
                    (!to_be_had_at_once || fallocate(fd, 0, 0, size) == 0) &&
                    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0;
  if (made) return fd;
  if (status.ok()) status = absl::UnavailableError(std::strerror(errno));
  close(fd);
  return status;
}

// The kernel aligns to 4 KiB pages only: reserve one huge page more than needed, and use what is aligned. Null if it
// cannot be had, for the reason in errno.
std::byte* MapHugePages(size_t capacity, int fd) {
  const int reserve = fd < 0 ? PROT_READ | PROT_WRITE : PROT_NONE;
  void* mapped = mmap(nullptr, capacity + kHugePage, reserve, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(mapped);
  const size_t head = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  if (head > 0) munmap(begin, head);
  std::byte* data = begin + head;
  munmap(data + capacity, kHugePage - head);
  if (fd >= 0 && mmap(data, capacity, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
    const int error = errno;
    munmap(data, capacity);
    errno = error;
    return nullptr;
  }
  madvise(data, capacity, MADV_HUGEPAGE);  // a wish: without it all works, slower
  return data;
}

// Of private memory, or of the memfd, which it then owns.
absl::StatusOr<Block> MapBlock(size_t capacity, int fd) {
  std::byte* data = MapHugePages(capacity, fd);
  if (data != nullptr) {
    ++mapped_blocks;
    return Block{std::unique_ptr<std::byte, Release>(data, Release{capacity, fd}), capacity};
  }
  const int error = errno;
  if (fd >= 0) close(fd);
  return OutOfMemory(capacity, WhyNotMapped(capacity, error));
}

// `why_not_mapped`, if there is none.
absl::StatusOr<Block> HeapBlock(size_t capacity, absl::string_view why_not_mapped) {
  auto* data = static_cast<std::byte*>(std::aligned_alloc(kLine, capacity));
  if (data == nullptr) return OutOfMemory(capacity, why_not_mapped);
  return Block{std::unique_ptr<std::byte, Release>(data), capacity};
}

absl::Status CheckMayMap() {
  if (mapped_blocks < MostMappingsOfMemory()) return CheckMappingsLeft();
  return absl::ResourceExhaustedError(
      absl::StrCat("tensors take ", MostMappingsOfMemory(), " mappings, a quarter of vm.max_map_count; raise that"));
}

// `unshared`: why it is private, if it was to be shared.
absl::StatusOr<Block> AllocateBlock(size_t capacity, Backing backing, absl::Status& unshared) {
  if (capacity < kHugePage) return HeapBlock(capacity, "the system has none left");
  if (absl::Status status = CheckAddressesLeft(capacity); !status.ok()) return OutOfMemory(capacity, status.message());
  if (absl::Status status = CheckMayMap(); !status.ok()) {
    if (backing == Backing::kShared) unshared = status;
    return HeapBlock(capacity, status.message());  // which may grow without a mapping more
  }
  if (backing == Backing::kShared) {
    const absl::StatusOr<int> fd = MakeSharedMemory(capacity);
    absl::StatusOr<Block> shared = fd.ok() ? MapBlock(capacity, *fd) : absl::StatusOr<Block>(fd.status());
    unshared = shared.status();
    if (shared.ok()) return shared;
  }
  return MapBlock(capacity, -1);
}

// A list of one block: it moves to and from the pool without an allocation, which a destructor could not afford.
using Blocks = std::list<Block>;

absl::StatusOr<Blocks> AllocateBlocks(size_t capacity, Backing backing, absl::Status& unshared) {
  absl::StatusOr<Block> block = AllocateBlock(capacity, backing, unshared);
  if (!block.ok()) return block.status();
  Blocks blocks;
  blocks.push_back(*std::move(block));
  return blocks;
}

// Of a buffer that has all of a block.
SharedPlace PlaceOf(const Block& block, size_t size) {
  return block.fd() < 0 ? SharedPlace{} : SharedPlace{block.fd(), 0, size};
}

class OwnBuffer final : public Buffer {
 public:
  OwnBuffer(Block block, size_t size)
      : Buffer(block.data.get(), size, PlaceOf(block, size)), block_(std::move(block)) {}

 private:
  Block block_;
};

class BorrowedBuffer final : public Buffer {
 public:
  // Only ever handed out as const.
  BorrowedBuffer(absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner)
      : Buffer(const_cast<std::byte*>(bytes.data()), bytes.size()), owner_(std::move(owner)) {}

 private:
  std::shared_ptr<const void> owner_;
};

}  // namespace

std::shared_ptr<const Buffer> Buffer::Borrow(absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner) {
  return std::make_shared<BorrowedBuffer>(bytes, std::move(owner));
}

void Buffer::Prefault(size_t begin, size_t size) {
#ifdef MADV_POPULATE_WRITE
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::byte* const first = data_ + begin - reinterpret_cast<uintptr_t>(data_ + begin) % page;
  const std::byte* const end = data_ + std::min(size_, begin + size);
  madvise(first, static_cast<size_t>(end - first), MADV_POPULATE_WRITE);
#else
  (void)begin, (void)size;
#endif
}

absl::StatusOr<std::shared_ptr<Buffer>> Buffer::Allocate(size_t size, Backing backing) try {
  if (size > kMaxSize) return OutOfMemory(size);
  absl::Status unshared;
  absl::StatusOr<Block> block = AllocateBlock(CapacityFor(size), backing, unshared);
  if (!block.ok()) return block.status();
  return std::make_shared<OwnBuffer>(*std::move(block), size);
} catch (const std::bad_alloc&) {
  return OutOfMemory(size);
}

class BufferPool::State {
 public:
  State(uint64_t max_idle_bytes, Fit fit, std::function<void()> on_release, Backing backing,
        std::function<void(const absl::Status&)> on_unshared)
      : max_idle_bytes_(max_idle_bytes),
        largest_fit_(fit == Fit::kLoose ? 4 : 1),
        on_release_(std::move(on_release)),
        backing_(backing),
        on_unshared_(std::move(on_unshared)) {}

  // In a child of a fork its lock may be held for ever, by a thread that only the parent has.
  bool forked() const { return guard_.forked(); }

  // An idle block, or a new one. What is idle keeps memory, descriptors and mappings from nobody who needs them.
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
    if (instead > 0) idle_.try_emplace(instead);  // now, since giving back must not allocate
    used_bytes_ += instead;
    used_bytes_ -= capacity;
  }

  void GiveBack(Blocks block, bool reusable) {
    Blocks freed;  // after the lock is released: unmapping takes long
    {
      const std::lock_guard lock(mutex_);
      used_bytes_ -= block.front().capacity;
      if (reusable) {
        idle_bytes_ += block.front().capacity;
        block.front().given_back = ++given_back_;
        Blocks& alike = idle_.find(block.front().capacity)->second;
        alike.splice(alike.end(), block);
        freed = Trim(max_idle_bytes_);
      }
    }
    block.clear();
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
  // An idle block, or none: of those that fit the smallest, and of these the newest, which is the warmest.
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

  // Takes out the oldest blocks, for the caller to free. Needs the lock.
  Blocks Trim(uint64_t bytes) {
    Blocks trimmed;
    while (idle_bytes_ > bytes) {
      Blocks* oldest = nullptr;
      for (auto& [capacity, blocks] : idle_) {
        if (blocks.empty()) continue;
        if (oldest == nullptr || blocks.front().given_back < oldest->front().given_back) oldest = &blocks;
      }
      idle_bytes_ -= oldest->front().capacity;
      trimmed.splice(trimmed.end(), *oldest, oldest->begin());
    }
    return trimmed;
  }

  const uint64_t max_idle_bytes_;
  const size_t largest_fit_;  // times what is asked for
  const std::function<void()> on_release_;
  const Backing backing_;
  const std::function<void(const absl::Status&)> on_unshared_;
  std::atomic<bool> told_unshared_{false};
  const ForkGuard guard_;
  // Guards all below. ThreadSanitizer knows it, while it cannot see into an abseil that was built without.
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
  // Afterwards: an idle block that serves needs no room. What is new is not touched yet.
  if (buffer.ok() && *buffer != nullptr) state_->TrimToTotal(max_bytes);
  return buffer;
}

// Null if more than `max_bytes` were handed out then.
absl::StatusOr<std::shared_ptr<Buffer>> BufferPool::Take(size_t size, uint64_t max_bytes) try {
  class PooledBuffer final : public Buffer {
   public:
    PooledBuffer(Blocks block, size_t size, std::weak_ptr<State> pool)
        : Buffer(block.front().data.get(), size, PlaceOf(block.front(), size)),
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

  if (size > kMaxSize) return OutOfMemory(size);
  const size_t capacity = CapacityFor(size);
  if (!state_->Count(capacity, max_bytes)) return nullptr;
  size_t counted = capacity;
  absl::Cleanup uncount = [&] { state_->Recount(counted, 0); };
  absl::StatusOr<Blocks> block = state_->Get(capacity);
  if (!block.ok()) return block.status();
  const size_t got = block->front().capacity;
  state_->Recount(counted, got);
  counted = got;
  auto buffer = std::make_shared<PooledBuffer>(*std::move(block), size, state_);
  std::move(uncount).Cancel();
  return buffer;
} catch (const std::bad_alloc&) {
  return OutOfMemory(size);
}

size_t BufferPool::CapacityOf(size_t size) { return CapacityFor(size); }

void BufferPool::TrimTo(uint64_t bytes) { state_->TrimTo(bytes); }

uint64_t BufferPool::used_bytes() const { return state_->used_bytes(); }

uint64_t BufferPool::idle_bytes() const { return state_->idle_bytes(); }

}  // namespace refit

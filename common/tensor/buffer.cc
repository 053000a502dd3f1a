#include "refit/buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <utility>

#include "common/tensor/memory_block.h"

namespace refit {
namespace {

class OwnBuffer final : public Buffer {
 public:
  OwnBuffer(MemoryBlock block, size_t size)
      : Buffer(block.data(), size, block.PlaceOf(size)), block_(std::move(block)) {}

 private:
  MemoryBlock block_;
};

class BorrowedBuffer final : public Buffer {
 public:
  // Callers only get it as const.
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
  if (size > kMaxBufferSize) return OutOfMemory(size);
  absl::Status unshared;
  absl::StatusOr<MemoryBlock> block = MemoryBlock::Allocate(MemoryBlock::CapacityFor(size), backing, unshared);
  if (!block.ok()) return block.status();
  return std::make_shared<OwnBuffer>(*std::move(block), size);
} catch (const std::bad_alloc&) {
  return OutOfMemory(size);
}

}  // namespace refit

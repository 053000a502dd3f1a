#include "common/tensor/memory_block.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/limits/process_limits.h"

namespace refit {
namespace {

constexpr size_t kLine = 64;

// Blocks of this process that are not unmapped yet.
std::atomic<uint64_t> mapped_blocks{0};

// Memory that others may map through /proc/<pid>/fd/<fd>.
absl::StatusOr<int> MakeSharedMemory(size_t capacity) {
  if (absl::Status status = CheckFileSize(capacity); !status.ok()) return status;
  static const bool to_be_had_at_once = IsMemoryCountedStrictly();
  const int fd = memfd_create("refit-tensor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return absl::UnavailableError(WhyNotOpened(errno));
  absl::Status status = CheckDescriptorsLeft(fd);
  const auto size = static_cast<off_t>(capacity);
  const bool made = status.ok() && fchmod(fd, S_IRUSR | S_IWUSR) == 0 && ftruncate(fd, size) == 0 &&
                    (!to_be_had_at_once || fallocate(fd, 0, 0, size) == 0);
  if (made) return fd;
  if (status.ok()) status = absl::UnavailableError(std::strerror(errno));
  close(fd);
  return status;
}

// Nobody can change the memory's size any more, nor write to it but through mappings that exist already, whatever
// descriptor they have. Linux before 5.1 knows only the first.
bool Seal(int fd) {
  constexpr int kSize = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  return fcntl(fd, F_ADD_SEALS, kSize | F_SEAL_FUTURE_WRITE) == 0 || fcntl(fd, F_ADD_SEALS, kSize) == 0;
}

// The kernel only aligns to pages of 4 KiB. So one more huge page is reserved, and the aligned part is used. Null if it
// fails; errno has the reason.
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
  madvise(data, capacity, MADV_HUGEPAGE);  // a hint: without huge pages everything works, only slower
  return data;
}

absl::Status CheckMayMap() {
  if (mapped_blocks < MostMappingsOfMemory()) return CheckMappingsLeft();
  return absl::ResourceExhaustedError(
      absl::StrCat("tensors take ", MostMappingsOfMemory(), " mappings, a quarter of vm.max_map_count; raise that"));
}

}  // namespace

absl::Status OutOfMemory(size_t size, absl::string_view why) {
  return absl::ResourceExhaustedError(absl::StrCat("no memory for a buffer of ", size, " bytes: ", why));
}

void MemoryBlock::Release::operator()(std::byte* data) const {
  if (fd >= 0) close(fd);
  if (mapped > 0) {
    munmap(data, mapped);
    --mapped_blocks;
  } else {
    std::free(data);
  }
}

size_t MemoryBlock::CapacityFor(size_t size) {
  const size_t unit = size >= kHugePage ? kHugePage : kLine;
  return size == 0 ? unit : (size + unit - 1) / unit * unit;
}

SharedPlace MemoryBlock::PlaceOf(size_t size) const {
  const int fd = data_.get_deleter().fd;
  return fd < 0 ? SharedPlace{} : SharedPlace{fd, 0, size};
}

absl::StatusOr<MemoryBlock> MemoryBlock::Map(size_t capacity, int fd) {
  std::byte* data = MapHugePages(capacity, fd);
  if (data != nullptr) {
    ++mapped_blocks;
    MemoryBlock block(data, Release{capacity, fd}, capacity);
    if (fd >= 0 && !Seal(fd))
      return absl::UnavailableError(absl::StrCat("it cannot be sealed: ", std::strerror(errno)));
    return block;
  }
  const int error = errno;
  if (fd >= 0) close(fd);
  return OutOfMemory(capacity, WhyNotMapped(capacity, error));
}

absl::StatusOr<MemoryBlock> MemoryBlock::FromHeap(size_t capacity, absl::string_view why_not_mapped) {
  auto* data = static_cast<std::byte*>(std::aligned_alloc(kLine, capacity));
  if (data == nullptr) return OutOfMemory(capacity, why_not_mapped);
  return MemoryBlock(data, Release{}, capacity);
}

absl::StatusOr<MemoryBlock> MemoryBlock::Allocate(size_t capacity, Backing backing, absl::Status& unshared) {
  if (capacity < kHugePage) return FromHeap(capacity, "the system has none left");
  if (absl::Status status = CheckAddressesLeft(capacity); !status.ok()) return OutOfMemory(capacity, status.message());
  if (absl::Status status = CheckMayMap(); !status.ok()) {
    if (backing == Backing::kShared) unshared = status;
    return FromHeap(capacity, status.message());  // the heap may grow without another mapping
  }
  if (backing == Backing::kShared) {
    const absl::StatusOr<int> fd = MakeSharedMemory(capacity);
    absl::StatusOr<MemoryBlock> shared = fd.ok() ? Map(capacity, *fd) : absl::StatusOr<MemoryBlock>(fd.status());
    unshared = shared.status();
    if (shared.ok()) return shared;
  }
  return Map(capacity, -1);
}

}  // namespace refit

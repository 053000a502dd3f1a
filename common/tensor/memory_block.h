// Memory from the system: from the heap, with huge pages, or shared with other processes. For this project's own use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "refit/buffer.h"

namespace refit {

inline constexpr size_t kHugePage = 2 << 20;
inline constexpr size_t kMaxBufferSize = std::numeric_limits<ptrdiff_t>::max() - 2 * kHugePage;

// Freed with its owner. Aligned to 64 bytes; from 2 MiB on aligned to 2 MiB, with huge pages requested.
class MemoryBlock {
 public:
  // `capacity` is a result of CapacityFor. RESOURCE_EXHAUSTED, naming the limit that was reached and its setting.
  // `unshared` gets the reason if the memory is private although it was to be shared.
  static absl::StatusOr<MemoryBlock> Allocate(size_t capacity, Backing backing, absl::Status& unshared);

  // The capacity for a buffer of `size`: whole cache lines, or whole huge pages.
  static size_t CapacityFor(size_t size);

  std::byte* data() const { return data_.get(); }
  size_t capacity() const { return capacity_; }
  // The place of a buffer of `size` that begins with the block.
  SharedPlace PlaceOf(size_t size) const;

 private:
  struct Release {
    size_t mapped = 0;  // bytes to unmap; 0: the memory is from the heap
    int fd = -1;        // the memfd, if the memory is shared
    void operator()(std::byte* data) const;
  };

  MemoryBlock(std::byte* data, Release release, size_t capacity) : data_(data, release), capacity_(capacity) {}
  // If there is no memory, the error says `why_not_mapped`.
  static absl::StatusOr<MemoryBlock> FromHeap(size_t capacity, absl::string_view why_not_mapped);
  // Maps private memory, or the memfd, which the block then owns.
  static absl::StatusOr<MemoryBlock> Map(size_t capacity, int fd);

  std::unique_ptr<std::byte, Release> data_;
  size_t capacity_;
};

// RESOURCE_EXHAUSTED.
absl::Status OutOfMemory(size_t size, absl::string_view why = "the system has none left");

}  // namespace refit

// Memory as the system gives it: from the heap, on huge pages, or shared with other processes. For this project's own
// use.
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

// Freed with its owner. Aligned to 64 bytes; from 2 MiB on to 2 MiB, with huge pages asked for.
class MemoryBlock {
 public:
  // `capacity` is one of CapacityFor. RESOURCE_EXHAUSTED, naming the limit that was hit and its setting. `unshared`
  // says why the memory is private, if it was to be shared.
  static absl::StatusOr<MemoryBlock> Allocate(size_t capacity, Backing backing, absl::Status& unshared);

  // What a buffer of `size` takes: whole lines, or whole huge pages.
  static size_t CapacityFor(size_t size);

  std::byte* data() const { return data_.get(); }
  size_t capacity() const { return capacity_; }
  // Where a buffer of `size` that begins with the block lies.
  SharedPlace PlaceOf(size_t size) const;

 private:
  struct Release {
    size_t mapped = 0;  // bytes to unmap; 0: from the heap
    int fd = -1;        // of the memory, if it is shared
    void operator()(std::byte* data) const;
  };

  MemoryBlock(std::byte* data, Release release, size_t capacity) : data_(data, release), capacity_(capacity) {}
  // `why_not_mapped`, if there is none.
  static absl::StatusOr<MemoryBlock> FromHeap(size_t capacity, absl::string_view why_not_mapped);
  // Of private memory, or of the memfd, which it then owns.
  static absl::StatusOr<MemoryBlock> Map(size_t capacity, int fd);

  std::unique_ptr<std::byte, Release> data_;
  size_t capacity_;
};

// RESOURCE_EXHAUSTED.
absl::Status OutOfMemory(size_t size, absl::string_view why = "the system has none left");

}  // namespace refit

// Memory for tensors.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace refit {

// What memory is made of. kShared: from 2 MiB on memory that other processes of the same user may map, as far as the
// system has it; see common/net/shared_segment.h.
enum class Backing { kPrivate, kShared };

// Where a buffer lies in a memfd that is sealed against shrinking, of which `bytes` may be mapped; fd -1: in none.
struct SharedPlace {
  int fd = -1;
  uint64_t begin = 0;
  uint64_t bytes = 0;
};

// A block of memory, freed (or given back to its pool) when the last reference goes. Not resized, not copied.
// Aligned to 64 bytes; from 2 MiB on to 2 MiB, with huge pages asked for. Contents are undefined at first.
// Writing is not synchronised.
class Buffer {
 public:
  virtual ~Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  absl::Span<std::byte> span() { return {data_, size_}; }
  absl::Span<const std::byte> span() const { return {data_, size_}; }

  // Of private memory, none.
  const SharedPlace& shared() const { return shared_; }
  int shared_fd() const { return shared_.fd; }

  // Has the system give memory to [begin, begin + size) now, in one go, rather than page by page as it is written. What
  // it holds stays; others may write it meanwhile. A wish: nothing is lost if it fails.
  void Prefault(size_t begin, size_t size);

  // Others may still see the memory when the buffer goes: it is freed then, and never reused. Of a piece of a larger
  // buffer, all of that. Thread-safe.
  virtual void NeverReuse() const { reusable_ = false; }

  // A buffer of its own, outside of any pool. RESOURCE_EXHAUSTED, naming the limit that was hit and its setting, if the
  // system has no memory for it. Private in place of kShared if there is none to share.
  static absl::StatusOr<std::shared_ptr<Buffer>> Allocate(size_t size, Backing backing = Backing::kPrivate);

  // Memory that is somebody else's, such as a mapped file's, and that `owner` keeps. Of any alignment.
  static std::shared_ptr<const Buffer> Borrow(absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner);

 protected:
  Buffer(std::byte* data, size_t size, SharedPlace shared = {}) : data_(data), size_(size), shared_(shared) {}
  bool is_reusable() const { return reusable_; }

 private:
  std::byte* data_;
  size_t size_;
  SharedPlace shared_;
  mutable std::atomic<bool> reusable_{true};
};

}  // namespace refit

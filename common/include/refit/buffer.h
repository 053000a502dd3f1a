// Memory for tensors.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace refit {

// The kind of memory. kShared: buffers of 2 MiB or more are in memory that other processes of the same user may map, as
// far as the system has such memory (memfd).
enum class Backing { kPrivate, kShared };

// A buffer's place in a memfd that is sealed against shrinking. `bytes` of it may be mapped. fd -1: the buffer is not
// in a memfd.
struct SharedPlace {
  int fd = -1;
  uint64_t begin = 0;
  uint64_t bytes = 0;
};

// A block of memory. It is freed, or returned to its pool, when the last reference is gone. Neither resized nor copied.
// Aligned to 64 bytes; from 2 MiB on aligned to 2 MiB, with huge pages requested. Contents are undefined at first.
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

  // Empty for private memory.
  const SharedPlace& shared() const { return shared_; }
  int shared_fd() const { return shared_.fd; }

  // Has the system provide memory for [begin, begin + size) at once, rather than page by page when it is written.
  // Contents stay, and other threads may write meanwhile. This is an optimisation: failure has no effect.
  void Prefault(size_t begin, size_t size);

  // Others may still use the memory when the buffer is destroyed. So the memory is freed then, and not reused. For a
  // piece of a larger buffer, this applies to the whole buffer. Thread-safe.
  virtual void NeverReuse() const { reusable_ = false; }

  // Allocates a buffer outside of any pool. RESOURCE_EXHAUSTED, naming the limit that was reached and its setting, if
  // the system has no memory for it. If there is no shared memory, a kShared buffer is private.
  static absl::StatusOr<std::shared_ptr<Buffer>> Allocate(size_t size, Backing backing = Backing::kPrivate);

  // Wraps memory of another owner, such as a mapped file, which `owner` keeps alive. Any alignment.
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

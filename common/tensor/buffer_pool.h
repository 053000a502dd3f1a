// Memory that is used again. For this project's own use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "refit/buffer.h"

namespace refit {

// Keeps freed buffers for the next version, whose tensors have the same sizes. Their pages stay mapped: to touch a page
// for the first time costs more than to copy into it. Thread-safe. Buffers may outlive the pool.
class BufferPool {
 public:
  // Which free block serves a request. kExact: only one of the same capacity, so that no memory is wasted. kLoose: or
  // else the smallest one of up to four times that capacity, for a user with few buffers at a time.
  enum class Fit { kExact, kLoose };

  // Keeps at most `max_idle_bytes` of free memory. Calls `on_release` after each buffer that came back, from the thread
  // that let go of it, which may hold any locks. Calls `on_unshared` once, when memory is private in place of kShared,
  // with the reason, from the thread that asked for the memory.
  explicit BufferPool(uint64_t max_idle_bytes, Fit fit = Fit::kExact, std::function<void()> on_release = nullptr,
                      Backing backing = Backing::kPrivate,
                      std::function<void(const absl::Status&)> on_unshared = nullptr);
  ~BufferPool();

  // A buffer of exactly `size` usable bytes. Takes a free block that fits if there is one.
  absl::StatusOr<std::shared_ptr<Buffer>> Get(size_t size);

  // The same within a limit: null if more than `max_bytes` were handed out then. Frees idle memory, so that this and
  // what is handed out are no more than `max_bytes` together.
  absl::StatusOr<std::shared_ptr<Buffer>> GetWithin(size_t size, uint64_t max_bytes);

  // Frees idle memory down to `bytes`.
  void TrimTo(uint64_t bytes);

  // Bytes in use, and idle bytes that wait for reuse; both are sums of capacities.
  uint64_t used_bytes() const;
  uint64_t idle_bytes() const;

 private:
  class State;
  absl::StatusOr<std::shared_ptr<Buffer>> Take(size_t size, uint64_t max_bytes);
  std::shared_ptr<State> state_;
};

}  // namespace refit

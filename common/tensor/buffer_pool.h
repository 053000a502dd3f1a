// A pool that reuses the memory of buffers. For this project's own use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "refit/buffer.h"

namespace refit {

// Keeps freed buffers for the next version, whose tensors have the same sizes. Their pages stay mapped, because the
// first touch of a page costs more than a copy into it. Thread-safe. Buffers may outlive the pool.
class BufferPool {
 public:
  // Which free block serves a request. kExact: only one of the same capacity, so that no memory is wasted. kLoose:
  // otherwise the smallest one of up to four times that capacity, for a user with few buffers at a time.
  enum class Fit { kExact, kLoose };

  // Keeps at most `max_idle_bytes` of free memory. Calls `on_release` after each buffer that is returned, from the
  // thread that dropped it, which may hold any locks. Calls `on_unshared` once, with the reason, when memory is private
  // although kShared was requested; from the thread that requested it.
  explicit BufferPool(uint64_t max_idle_bytes, Fit fit = Fit::kExact, std::function<void()> on_release = nullptr,
                      Backing backing = Backing::kPrivate,
                      std::function<void(const absl::Status&)> on_unshared = nullptr);
  ~BufferPool();

  // A buffer of exactly `size` usable bytes. Takes a free block that fits if there is one.
  absl::StatusOr<std::shared_ptr<Buffer>> Get(size_t size);

  // As Get, with a limit: null if the used bytes would exceed `max_bytes`. Frees idle memory so that used and idle
  // memory together do not exceed `max_bytes`.
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

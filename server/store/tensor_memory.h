// The memory that versions' tensors lie in: one pool within one budget, and what waits for room in it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/tensor/buffer_pool.h"
#include "common/tensor/slab.h"

namespace refit {

// Thread-safe. Outlived by its buffers, which then are freed.
class TensorMemory {
 public:
  // `budget_bytes` binds TryGet alone, and how much idle memory is kept. `on_unshared`: see BufferPool.
  explicit TensorMemory(uint64_t budget_bytes, Backing backing = Backing::kPrivate,
                        std::function<void(const absl::Status&)> on_unshared = nullptr);

  // A buffer whose place in the budget was reserved elsewhere.
  absl::StatusOr<std::shared_ptr<Buffer>> Get(size_t size) { return pool_.Get(size); }

  // Null while the budget has no room: buffers still in use, by gRPC too, count.
  absl::StatusOr<std::shared_ptr<Buffer>> TryGet(size_t size) { return pool_.GetWithin(size, budget_bytes_); }

  // How often a buffer has come back. To be read before TryGet, and given to Wait if that had none.
  uint64_t releases() const;

  // Calls `wake` once, when a buffer comes back, from a thread that may hold any locks: `wake` may only post work.
  // False, and never calls, if one has come back since releases() was `seen`.
  bool Wait(uint64_t seen, std::function<void()> wake);

  // Gets memory for tensors that lie as `plan` has them, touches it, and leaves it idle in the pool. Ends early once
  // `stop` says so, or if there is none.
  void Prefault(const SlabPlan& plan, absl::FunctionRef<bool()> stop);

  // Frees idle memory down to `bytes`.
  void TrimIdleTo(uint64_t bytes) { pool_.TrimTo(bytes); }
  uint64_t idle_bytes() const { return pool_.idle_bytes(); }

 private:
  // Apart, for buffers that come back while the memory itself goes.
  struct Waiters {
    absl::Mutex mutex;
    uint64_t releases ABSL_GUARDED_BY(mutex) = 0;
    std::vector<std::function<void()>> wakes ABSL_GUARDED_BY(mutex);
    void OnRelease() ABSL_LOCKS_EXCLUDED(mutex);
  };

  const uint64_t budget_bytes_;
  const std::shared_ptr<Waiters> waiters_ = std::make_shared<Waiters>();
  BufferPool pool_;
};

}  // namespace refit

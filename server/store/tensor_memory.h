// Memory for the tensors of all versions: one pool with one budget, and callbacks that wait for room in it.
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

// Thread-safe. Its buffers may outlive it, and are then freed.
class TensorMemory {
 public:
  // `budget_bytes` limits only TryGet and the idle memory that is kept. `on_unshared`: see BufferPool.
  explicit TensorMemory(uint64_t budget_bytes, Backing backing = Backing::kPrivate,
                        std::function<void(const absl::Status&)> on_unshared = nullptr);

  // Gets a buffer whose share of the budget was reserved elsewhere.
  absl::StatusOr<std::shared_ptr<Buffer>> Get(size_t size) { return pool_.Get(size); }

  // Null while the budget has no room. Buffers in use count, also those in use by gRPC.
  absl::StatusOr<std::shared_ptr<Buffer>> TryGet(size_t size) { return pool_.GetWithin(size, budget_bytes_); }

  // How many buffers have been returned. Read it before TryGet, and pass it to Wait if TryGet returned null.
  uint64_t releases() const;

  // Calls `wake` once, when a buffer is returned, from a thread that may hold any locks: `wake` may only post work.
  // Returns false, and never calls it, if a buffer was returned since releases() was `seen`.
  bool Wait(uint64_t seen, std::function<void()> wake);

  // Allocates memory for tensors laid out as in `plan`, touches it, and leaves it idle in the pool. Ends early if
  // `stop` returns true, or if there is no memory.
  void Prefault(const SlabPlan& plan, absl::FunctionRef<bool()> stop);

  // Frees idle memory down to `bytes`.
  void TrimIdleTo(uint64_t bytes) { pool_.TrimTo(bytes); }
  uint64_t idle_bytes() const { return pool_.idle_bytes(); }

 private:
  // An object of its own, for buffers that are returned while the memory itself is destroyed.
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

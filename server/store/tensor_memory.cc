#include "server/store/tensor_memory.h"

#include <utility>

namespace refit {

TensorMemory::TensorMemory(uint64_t budget_bytes, Backing backing, std::function<void(const absl::Status&)> on_unshared)
    : budget_bytes_(budget_bytes),
      pool_(
          budget_bytes, BufferPool::Fit::kExact, [waiters = waiters_] { waiters->OnRelease(); }, backing,
          std::move(on_unshared)) {}

uint64_t TensorMemory::releases() const {
  absl::MutexLock lock(&waiters_->mutex);
  return waiters_->releases;
}

bool TensorMemory::Wait(uint64_t seen, std::function<void()> wake) {
  absl::MutexLock lock(&waiters_->mutex);
  if (waiters_->releases != seen) return false;
  waiters_->wakes.push_back(std::move(wake));
  return true;
}

void TensorMemory::Prefault(const SlabPlan& plan, absl::FunctionRef<bool()> stop) {
  constexpr size_t kStep = 8 << 20;           // `stop` is checked between two steps
  std::vector<std::shared_ptr<Buffer>> idle;  // given to the pool when released
  for (size_t slab = 0; slab < plan.slabs(); ++slab) {
    absl::StatusOr<std::shared_ptr<Buffer>> data = Get(plan.slab_bytes(slab));
    if (!data.ok()) return;
    for (uint64_t at = 0; at < plan.slab_bytes(slab); at += kStep) {
      if (stop()) return;
      (*data)->Prefault(at, kStep);
    }
    idle.push_back(*std::move(data));
  }
}

void TensorMemory::Waiters::OnRelease() {
  std::vector<std::function<void()>> woken;
  {
    absl::MutexLock lock(&mutex);
    ++releases;
    woken.swap(wakes);
  }
  for (const auto& wake : woken) wake();
}

}  // namespace refit

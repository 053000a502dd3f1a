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

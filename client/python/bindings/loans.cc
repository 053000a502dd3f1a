#include "client/python/bindings/loans.h"

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/python/bindings/python_owner.h"

namespace refit::python {

struct Loans::State {
  std::mutex mutex;
  std::condition_variable none;
  size_t lent = 0;

  void Return() {
    const std::lock_guard lock(mutex);
    if (--lent == 0) none.notify_all();
  }
};

std::shared_ptr<Loans::State> Loans::MakeState() { return std::make_shared<State>(); }

std::shared_ptr<const void> Loans::Lend(pybind11::object owner) {
  std::shared_ptr<const void> owned = OwnedBy(std::move(owner));
  {
    const std::lock_guard lock(state_->mutex);
    ++state_->lent;
  }
  const void* key = owned.get();
  return {key, [state = state_, owned = std::move(owned)](const void* /*unused*/) mutable {
            owned.reset();
            state->Return();
          }};
}

absl::Status Loans::AwaitNone(std::chrono::milliseconds timeout) const {
  std::unique_lock lock(state_->mutex);
  if (state_->none.wait_for(lock, timeout, [&] { return state_->lent == 0; })) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat("the network did not take what was pushed within ", timeout.count(),
                                                  " ms: ", state_->lent, " tensors are still read"));
}

}  // namespace refit::python

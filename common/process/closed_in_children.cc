#include "common/process/closed_in_children.h"

#include <pthread.h>
#include <unistd.h>

#include <array>

namespace refit {
namespace {

// Descriptors plus one; 0: free. There is no lock, because a fork could copy a locked one.
std::array<std::atomic<int>, 256> places;

void CloseAll() {
  for (std::atomic<int>& place : places) {
    if (const int taken = place.exchange(0); taken > 0) close(taken - 1);
  }
}

[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, &CloseAll);

}  // namespace

ClosedInChildren::ClosedInChildren(int fd) {
  for (std::atomic<int>& place : places) {
    int free = 0;
    if (!place.compare_exchange_strong(free, fd + 1)) continue;
    place_ = &place;
    return;
  }
}

ClosedInChildren::~ClosedInChildren() {
  if (place_ != nullptr) place_->store(0);
}

}  // namespace refit

// Closes descriptors in children of a fork. A child that kept a listening socket open would keep its port taken.
#pragma once

#include <atomic>

namespace refit {

// Closes `fd` in each child right after the fork, from construction to destruction. At most 256 at a time; more have no
// effect. Thread-safe.
class ClosedInChildren {
 public:
  explicit ClosedInChildren(int fd);
  ~ClosedInChildren();
  ClosedInChildren(const ClosedInChildren&) = delete;
  ClosedInChildren& operator=(const ClosedInChildren&) = delete;

 private:
  std::atomic<int>* place_ = nullptr;
};

}  // namespace refit

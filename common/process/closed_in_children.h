// Descriptors that children of a fork must not keep open, such as a listening socket, whose port would stay taken for
// as long as any of them lives.
#pragma once

#include <atomic>

namespace refit {

// Closes `fd` in each child, right after the fork, from construction to destruction. A wish: beyond 256 of them it does
// nothing. Thread-safe.
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

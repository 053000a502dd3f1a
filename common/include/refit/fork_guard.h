// What a fork must not tear. A child of fork() has its parent's memory, sockets and epoll sets, but none of its
// threads: what it ended of a connection or a service, it would end for its parent; what it waited for would never
// come.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace refit {

// Which process this is, counted in forks from the one that loaded the library. Thread-safe.
uint64_t ProcessGeneration();

// Forks that this process and those before it have begun. Thread-safe.
uint64_t ForksBegun();

// Remembers the process in which it was made. Immutable, thread-safe.
class ForkGuard {
 public:
  explicit ForkGuard(uint64_t generation = ProcessGeneration()) : generation_(generation) {}

  // Whether this is a child of that process.
  bool forked() const { return generation_ != ProcessGeneration(); }

  // FAILED_PRECONDITION in a child, saying what to do; `what` is what cannot be used there: "publisher to host:port".
  absl::Status Check(absl::string_view what) const;

 private:
  uint64_t generation_;
};

// Deletes in the process that made it; in a child the object stays as it is, for good. That is the one deliberate leak:
// nothing of it could be ended there without touching what is the parent's, or waiting for threads that do not exist.
template <typename T>
struct DeleteUnlessForked {
  ForkGuard guard;
  void operator()(T* object) const {
    if (!guard.forked()) std::default_delete<T>()(object);
  }
};

// Owns what only the process that made it can end. A std::shared_ptr can be made of it.
template <typename T>
using OwnedByProcess = std::unique_ptr<T, DeleteUnlessForked<T>>;

template <typename T, typename... Arguments>
OwnedByProcess<T> MakeOwnedByProcess(Arguments&&... arguments) {
  return OwnedByProcess<T>(std::make_unique<T>(std::forward<Arguments>(arguments)...).release());
}

// Holds on to what others own too, for good: in a child, whose last reference must not end it.
template <typename T>
void KeepForGood(std::shared_ptr<T> object) {
  (void)std::make_unique<std::shared_ptr<T>>(std::move(object)).release();
}

}  // namespace refit

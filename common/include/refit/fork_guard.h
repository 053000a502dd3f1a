// Protects objects after fork(). A child has its parent's memory, sockets and epoll sets, but none of its threads. If
// the child closed a connection or a service, it would close the parent's. If it waited for one of the parent's
// threads, it would wait for ever.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace refit {

// Identifies the process: how many forks lie between it and the process that loaded the library. Thread-safe.
uint64_t ProcessGeneration();

// How many forks this process and its ancestors have begun. Thread-safe.
uint64_t ForksBegun();

// Remembers the process that made it. Immutable, thread-safe.
class ForkGuard {
 public:
  explicit ForkGuard(uint64_t generation = ProcessGeneration()) : generation_(generation) {}

  // Whether this is a child of that process.
  bool forked() const { return generation_ != ProcessGeneration(); }

  // FAILED_PRECONDITION in a child, with the way out. `what` names the object that cannot be used there: "publisher to
  // host:port".
  absl::Status Check(absl::string_view what) const;

 private:
  uint64_t generation_;
};

// Deletes an object in the process that made it. In a child the object is leaked deliberately: it cannot be destroyed
// there without touching what belongs to the parent, or waiting for threads that do not exist.
template <typename T>
struct DeleteUnlessForked {
  ForkGuard guard;
  void operator()(T* object) const {
    if (!guard.forked()) std::default_delete<T>()(object);
  }
};

// Owns an object that only the process that made it may destroy. Convertible to std::shared_ptr.
template <typename T>
using OwnedByProcess = std::unique_ptr<T, DeleteUnlessForked<T>>;

template <typename T, typename... Arguments>
OwnedByProcess<T> MakeOwnedByProcess(Arguments&&... arguments) {
  return OwnedByProcess<T>(std::make_unique<T>(std::forward<Arguments>(arguments)...).release());
}

// Keeps a reference to a shared object for ever. For a child, whose last reference must not destroy it.
template <typename T>
void KeepForGood(std::shared_ptr<T> object) {
  (void)std::make_unique<std::shared_ptr<T>>(std::move(object)).release();
}

}  // namespace refit

#include "client/python/bindings/python_owner.h"

#include <atomic>
#include <thread>
#include <utility>

#include "refit/fork_guard.h"

namespace refit::python {
namespace {

// A Python object in the list of objects to release.
struct Owned {
  PyObject* object;
  Owned* next = nullptr;
};

// The list has no lock: a fork could copy a locked one. It lives as long as the process, because gRPC's threads may
// drop references at the very end.
std::atomic<Owned*> aside{nullptr};
std::atomic<bool> ending{false};
std::atomic<int> asking{0};  // threads that may be within Py_AddPendingCall
const ForkGuard loaded;

// Releases all objects of the list. Call it with the GIL held. An object's destructor may run any code.
int ReleaseAside(void* /*unused*/) {
  for (Owned* next = aside.exchange(nullptr); next != nullptr;) {
    const std::unique_ptr<Owned> released(std::exchange(next, next->next));
    Py_DECREF(released->object);
  }
  return 0;
}

// Adds an object to the list. Called without the GIL.
void PutAside(Owned* owned) {
  Owned* before = aside.load();
  do {
    owned->next = before;
  } while (!aside.compare_exchange_weak(before, owned));  // from here on other threads may release it
  const bool first = before == nullptr;
  ++asking;
  // Python's queue of pending calls may be full. Then the next call of OwnedBy releases the object.
  if (first && !ending) Py_AddPendingCall(&ReleaseAside, nullptr);
  --asking;
}

}  // namespace

std::shared_ptr<const void> OwnedBy(pybind11::object object) {
  ReleaseAside(nullptr);
  auto owned = std::make_unique<Owned>();
  owned->object = object.release().ptr();
  const void* const address = owned->object;
  return {address, [owned = owned.release()](const void*) { PutAside(owned); }};
}

void ReleaseNoMore() {
  ending = true;
  if (loaded.forked()) return;  // the count may include threads that exist only in the parent
  while (asking != 0) std::this_thread::yield();
}

}  // namespace refit::python

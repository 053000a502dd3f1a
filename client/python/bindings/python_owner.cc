#include "client/python/bindings/python_owner.h"

#include <atomic>
#include <thread>
#include <utility>

#include "refit/fork_guard.h"

namespace refit::python {
namespace {

// An object, and its place among those put aside.
struct Owned {
  PyObject* object;
  Owned* next = nullptr;
};

// Without a lock, which a fork might find taken for ever. Lives as long as the process: gRPC's threads may let go of
// something at its very end.
std::atomic<Owned*> aside{nullptr};
std::atomic<bool> ending{false};
std::atomic<int> asking{0};  // threads that may be within Py_AddPendingCall
const ForkGuard loaded;

// With the GIL held. An object's destructor may run any code.
int ReleaseAside(void* /*unused*/) {
  for (Owned* next = aside.exchange(nullptr); next != nullptr;) {
    const std::unique_ptr<Owned> released(std::exchange(next, next->next));
    Py_DECREF(released->object);
  }
  return 0;
}

// Without the GIL.
void PutAside(Owned* owned) {
  Owned* before = aside.load();
  do {
    owned->next = before;
  } while (!aside.compare_exchange_weak(before, owned));  // from here on others may release it
  const bool first = before == nullptr;
  ++asking;
  // Its queue may be full: then whoever owns something next does it.
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
  if (loaded.forked()) return;  // it may count threads that only the parent has
  while (asking != 0) std::this_thread::yield();
}

}  // namespace refit::python

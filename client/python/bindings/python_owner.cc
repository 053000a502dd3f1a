#include "client/python/bindings/python_owner.h"

#include <mutex>
#include <utility>
#include <vector>

namespace refit::python {
namespace {

// Lives as long as the process: gRPC's threads may let go of something at its very end.
struct Aside {
  std::mutex mutex;
  std::vector<PyObject*> objects;
};

Aside& TheAside() {
  static Aside& aside = *std::make_unique<Aside>().release();
  return aside;
}

// With the GIL held. An object's destructor may run any code, so not under the lock.
int ReleaseAside(void* /*unused*/) {
  std::vector<PyObject*> objects;
  {
    const std::lock_guard lock(TheAside().mutex);
    objects.swap(TheAside().objects);
  }
  for (PyObject* object : objects) Py_DECREF(object);
  return 0;
}

// Without the GIL.
void PutAside(PyObject* object) {
  bool first = false;
  {
    const std::lock_guard lock(TheAside().mutex);
    first = TheAside().objects.empty();
    TheAside().objects.push_back(object);
  }
  // Its queue may be full: then whoever owns something next does it.
  if (first) Py_AddPendingCall(&ReleaseAside, nullptr);
}

}  // namespace

std::shared_ptr<const void> OwnedBy(pybind11::object object) {
  ReleaseAside(nullptr);
  return {object.release().ptr(),
          [](const void* owned) { PutAside(static_cast<PyObject*>(const_cast<void*>(owned))); }};
}

}  // namespace refit::python

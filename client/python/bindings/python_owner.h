// Keeps Python objects alive while C++ uses their memory. Any thread may drop the last reference.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

namespace refit::python {

// Keeps `object` until the last reference is gone. The thread that drops it does not need the GIL: the object is put
// into a list, and a thread with the GIL releases it soon after. Call it with the GIL held.
std::shared_ptr<const void> OwnedBy(pybind11::object object);

// Call it when the interpreter is ending. From then on objects stay in the list, and no thread calls Python to release
// them.
void ReleaseNoMore();

}  // namespace refit::python

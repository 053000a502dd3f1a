// Python objects that own memory which other threads let go of.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

namespace refit::python {

// Keeps `object` until the last reference goes, in whatever thread: there it is only put aside, and released by a
// thread that has the GIL, soon. Call with the GIL held.
std::shared_ptr<const void> OwnedBy(pybind11::object object);

// The interpreter is ending: what is put aside from now on stays there, and no thread asks Python for anything.
void ReleaseNoMore();

}  // namespace refit::python

// Python bindings of refit/worker.h: a worker that follows versions.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindWorker(pybind11::module_& module);

}  // namespace refit::python

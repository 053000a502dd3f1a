// A worker that follows: refit/worker.h for Python.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindWorker(pybind11::module_& module);

}  // namespace refit::python

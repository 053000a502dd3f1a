// The service within the trainer's process: refit/server.h for Python.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindService(pybind11::module_& module);

}  // namespace refit::python

// Python bindings of refit/server.h: the service in the trainer's process.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindService(pybind11::module_& module);

}  // namespace refit::python

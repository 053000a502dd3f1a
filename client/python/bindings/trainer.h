// The trainer's side: refit/publisher.h for Python.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindTrainer(pybind11::module_& module);

}  // namespace refit::python

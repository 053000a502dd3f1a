// Python bindings of refit/publisher.h: the trainer's client.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindTrainer(pybind11::module_& module);

}  // namespace refit::python

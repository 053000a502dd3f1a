// Pulls and watches: refit/subscriber.h for Python.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindSubscriber(pybind11::module_& module);

}  // namespace refit::python

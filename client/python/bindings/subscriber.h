// Python bindings of refit/subscriber.h: pulls and watches.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindSubscriber(pybind11::module_& module);

}  // namespace refit::python

// What a worker still has, as the base of a pull.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindPullBase(pybind11::module_& module);

}  // namespace refit::python

// Rules that cut tensors into parts: refit/layout_rule.h for Python.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindLayoutRule(pybind11::module_& module);

}  // namespace refit::python

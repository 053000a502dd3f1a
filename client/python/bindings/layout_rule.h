// Python bindings of refit/layout_rule.h: rules that split tensors into parts.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindLayoutRule(pybind11::module_& module);

}  // namespace refit::python

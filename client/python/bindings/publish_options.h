// What a trainer says of a version, of Publisher and Service alike: refit/publish_options.h for Python.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindPublishOptions(pybind11::module_& module);

}  // namespace refit::python

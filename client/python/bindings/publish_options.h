// Python bindings of refit/publish_options.h, for Publisher and Service.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindPublishOptions(pybind11::module_& module);

}  // namespace refit::python

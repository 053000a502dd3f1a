// Python bindings of common/adapters: conversion without a service.
#pragma once

#include <pybind11/pybind11.h>

namespace refit::python {

void BindAdapters(pybind11::module_& module);

}  // namespace refit::python

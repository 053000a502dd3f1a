// Turns statuses into Python exceptions.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/python/bindings/gil.h"

namespace refit::python {

// pybind11 turns it into the exception that refit.errors.from_status makes of code and message.
class StatusError final : public std::exception {
 public:
  explicit StatusError(absl::Status status) : status_(std::move(status)), message_(status_.message()) {}
  const absl::Status& status() const { return status_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  const absl::Status status_;
  const std::string message_;
};

inline void Check(const absl::Status& status) {
  if (!status.ok()) throw StatusError(status);
}

template <typename T>
T Value(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

// Call it with the GIL held.
inline pybind11::object ToException(const absl::Status& status) {
  return InPython([&]() -> pybind11::object {
    return pybind11::module_::import("refit.errors")
        .attr("from_status")(status.raw_code(), std::string(status.message()));
  });
}

// Raises an existing Python exception. Call it with the GIL held.
[[noreturn]] inline void Raise(const pybind11::object& exception) {
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
  throw pybind11::error_already_set();
}

inline void RegisterStatusError() {
  // NOLINTNEXTLINE(performance-unnecessary-value-param): the signature is pybind11's.
  pybind11::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const StatusError& error) {
      const pybind11::object exception = ToException(error.status());
      PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
    }
  });
}

}  // namespace refit::python

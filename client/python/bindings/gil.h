// Takes and releases the GIL safely, also while the interpreter is ending.
#pragma once

#include <pybind11/pybind11.h>

#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

#include <utility>

#include "absl/functional/function_ref.h"

namespace refit::python {

// Blocks until the process ends, without the GIL.
[[noreturn]] void WaitForTheEnd();

// Runs `call`, which runs Python code or takes the GIL. Before version 3.14, Python ends a thread that requests the GIL
// of an ending interpreter by unwinding its stack, which C++ does not survive. Here such a thread waits for the end of
// the process, as in Python 3.14.
template <typename Call>
decltype(auto) InPython(Call&& call) {
#ifdef __GLIBCXX__
  try {
    return std::forward<Call>(call)();
  } catch (abi::__forced_unwind&) {
    WaitForTheEnd();
  }
#else
  return std::forward<Call>(call)();
#endif
}

// Releases the GIL during its life. Always use this class: pybind11's own would end the process, see InPython.
class WithoutGil {
 public:
  WithoutGil() : thread_(PyEval_SaveThread()) {}
  ~WithoutGil() { Take(); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

  // Runs `call` with the GIL, in the thread that made this object. `call` must not throw.
  void With(absl::FunctionRef<void()> call) {
    Take();
    call();
    thread_ = PyEval_SaveThread();
  }

 private:
  void Take() const {
    InPython([this] { PyEval_RestoreThread(thread_); });
  }

  PyThreadState* thread_;
};

}  // namespace refit::python

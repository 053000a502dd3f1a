// The GIL, and what becomes of a thread that comes for it when the interpreter is ending.
#pragma once

#include <pybind11/pybind11.h>

#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

#include <utility>

#include "absl/functional/function_ref.h"

namespace refit::python {

// Waits for the end of the process, without the GIL.
[[noreturn]] void WaitForTheEnd();

// Runs `call`, which runs Python code or takes the GIL. Up to version 3.13 Python ends a thread that wants the GIL of
// an ending interpreter by unwinding its stack, which C++ does not survive. Here it waits for the end, as Python 3.14
// has it.
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

// Lets go of the GIL for as long as it lives. The one way to do so here: pybind11's own ends the process, see InPython.
class WithoutGil {
 public:
  WithoutGil() : thread_(PyEval_SaveThread()) {}
  ~WithoutGil() { Take(); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

  // Runs `call` with the GIL, in the thread that made this. It must not throw.
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

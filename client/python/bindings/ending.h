// Ends native calls and services before the interpreter ends. Call all of this with the GIL held.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <list>

#include "absl/functional/function_ref.h"

namespace refit::python {

// Registers with Python's atexit a function that ends all calls and services. It runs when all non-daemon threads have
// ended and nothing is torn down yet. It waits for the calls, at most half a second.
void EndWithInterpreter();

struct UnderWay;

// A call into native code, from construction to destruction. Once the interpreter is ending, a thread that begins or
// ends such a call waits for the end of the process instead, unless that thread is ending the interpreter.
class NativeCall {
 public:
  // `cancel` must make the call end soon. Any thread may call it, with or without the GIL. It must not take the GIL.
  explicit NativeCall(absl::FunctionRef<void()> cancel);
  ~NativeCall();
  // Call it without the GIL when the work is done. At the end of the interpreter it does not return, so a call that was
  // cancelled for that reason reports no error.
  void Done();
  NativeCall(const NativeCall&) = delete;
  NativeCall& operator=(const NativeCall&) = delete;

 private:
  UnderWay& under_way_;
  std::list<absl::FunctionRef<void()>>::iterator place_;
};

// A service. It ends with the interpreter at the latest. `end` is called without the GIL.
class NativeService {
 public:
  explicit NativeService(std::function<void()> end);
  ~NativeService();
  NativeService(const NativeService&) = delete;
  NativeService& operator=(const NativeService&) = delete;

 private:
  UnderWay& under_way_;
  std::list<std::function<void()>>::iterator place_;
};

}  // namespace refit::python

// The end of the interpreter, which must find nothing of ours at work. All with the GIL held.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <list>

#include "absl/functional/function_ref.h"

namespace refit::python {

// Has Python's atexit end all calls and services. It runs when all threads but daemons are over, and before anything is
// torn down; it waits for the calls, half a second at most.
void EndWithInterpreter();

struct UnderWay;

// A call that is within native code, from construction to destruction. Once the interpreter is ending, a thread that
// begins or ends one waits for the end instead, unless it is the one that ends the interpreter.
class NativeCall {
 public:
  // `cancel` has the call end soon. It is called from any thread, with or without the GIL, and must not want it.
  explicit NativeCall(absl::FunctionRef<void()> cancel);
  ~NativeCall();
  // Comes when the work is done, without the GIL: what was cancelled because of the end is no error to report.
  void Done();
  NativeCall(const NativeCall&) = delete;
  NativeCall& operator=(const NativeCall&) = delete;

 private:
  UnderWay& under_way_;
  std::list<absl::FunctionRef<void()>>::iterator place_;
};

// A service, which ends with the interpreter at the latest. `end` is called without the GIL.
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

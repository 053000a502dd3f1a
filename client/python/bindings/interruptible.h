// Runs long native work without the GIL. Ctrl-C ends it, and it can call Python.
#pragma once

#include <pybind11/pybind11.h>

#include "absl/functional/function_ref.h"

namespace refit::python {

// Runs `work` without the GIL. Call it with the GIL held. Only Python's main thread handles signals. Called from the
// main thread, it runs `work` in another thread and handles signals meanwhile. If a signal handler raises
// (KeyboardInterrupt), it calls `cancel`, which must make `work` end soon, waits for that, and throws the exception.
// Called from any other thread, it runs `work` in that thread. `work` must not throw.
void RunInterruptible(absl::FunctionRef<void()> work, absl::FunctionRef<void()> cancel);

// Call it within `work`. Runs `callback` with the GIL held, in the thread that called RunInterruptible: Python code
// that uses thread-local state expects that thread. If `callback` throws, it cancels the work and returns false. `work`
// should then end, and RunInterruptible throws the same exception.
bool CallPython(absl::FunctionRef<void()> callback);

}  // namespace refit::python

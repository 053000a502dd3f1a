// Long work without the GIL that Ctrl-C ends, and that may call back into Python.
#pragma once

#include <pybind11/pybind11.h>

#include "absl/functional/function_ref.h"

namespace refit::python {

// Runs `work` with the GIL released; call with the GIL held. Signals are Python's main thread's to handle: called from
// there, `work` runs in a thread of its own, while this one handles them. If a handler raises (KeyboardInterrupt),
// `cancel` is called, from this thread, and must have `work` end soon; the exception goes on once it has. Called from
// any other thread, `work` runs right here. `work` must not throw.
void RunInterruptible(absl::FunctionRef<void()> work, absl::FunctionRef<void()> cancel);

// From within `work`: runs `callback` with the GIL held, in the thread that called RunInterruptible, as Python code
// expects that sets anything for its thread. If it throws, false: `work` is cancelled, should end, and RunInterruptible
// throws the same then.
bool CallPython(absl::FunctionRef<void()> callback);

}  // namespace refit::python

// Memory of Python's that is still read after a call has returned, as gRPC does; and the wait until it is not.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <memory>

#include "absl/status/status.h"

namespace refit::python {

// Thread-safe. What it lent may outlive it.
class Loans {
 public:
  // As OwnedBy, and counted until the last reference goes. Call with the GIL held.
  std::shared_ptr<const void> Lend(pybind11::object owner);

  // Until nothing is lent any more. DEADLINE_EXCEEDED if that takes longer. Call without the GIL.
  absl::Status AwaitNone(std::chrono::milliseconds timeout) const;

 private:
  struct State;
  std::shared_ptr<State> state_ = MakeState();
  static std::shared_ptr<State> MakeState();
};

}  // namespace refit::python

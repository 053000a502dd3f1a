// Counts the Python memory that is lent to native code, which may read it after the call has returned (gRPC does).
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <memory>

#include "absl/status/status.h"

namespace refit::python {

// Thread-safe. Lent memory may outlive this object.
class Loans {
 public:
  // As OwnedBy, and counted until the last reference is gone. Call it with the GIL held.
  std::shared_ptr<const void> Lend(pybind11::object owner);

  // Waits until nothing is lent. DEADLINE_EXCEEDED if that takes longer. Call it without the GIL.
  absl::Status AwaitNone(std::chrono::milliseconds timeout) const;

 private:
  struct State;
  std::shared_ptr<State> state_ = MakeState();
  static std::shared_ptr<State> MakeState();
};

}  // namespace refit::python

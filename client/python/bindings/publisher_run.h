// Runs calls of a publisher from Python.
#pragma once

#include <optional>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "client/python/bindings/interruptible.h"
#include "client/python/bindings/status_error.h"
#include "refit/publisher.h"

namespace refit::python {

// Returns what `call` returns. `call` runs without the GIL. Ctrl-C cancels the publisher.
template <typename Result>
Result Run(Publisher& publisher, absl::FunctionRef<absl::StatusOr<Result>()> call) {
  std::optional<absl::StatusOr<Result>> result;
  RunInterruptible([&] { result = call(); }, [&] { publisher.Cancel(); });
  return Value(*std::move(result));
}

inline void RunStatus(Publisher& publisher, absl::FunctionRef<absl::Status()> call) {
  absl::Status status;
  RunInterruptible([&] { status = call(); }, [&] { publisher.Cancel(); });
  Check(status);
}

}  // namespace refit::python

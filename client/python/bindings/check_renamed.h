// Errors that name Python arguments instead of flags.
#pragma once

#include "absl/status/status.h"
#include "client/python/bindings/status_error.h"
#include "server/settings.h"

namespace refit::python {

// As Check, but flags in the message are replaced by Python's arguments.
inline void CheckRenamed(const absl::Status& status) {
  if (!status.ok()) Check(absl::Status(status.code(), WithArgumentNames(status.message())));
}

}  // namespace refit::python

// Errors of the service, for who gave arguments rather than flags.
#pragma once

#include "absl/status/status.h"
#include "client/python/bindings/status_error.h"
#include "server/settings.h"

namespace refit::python {

// As Check, with flags that the message names as Python's arguments.
inline void CheckRenamed(const absl::Status& status) {
  if (!status.ok()) Check(absl::Status(status.code(), WithArgumentNames(status.message())));
}

}  // namespace refit::python

// Whether a stream was cut, rather than answered.
#pragma once

#include "absl/status/status.h"

namespace refit {

// Whether the status is that of a broken connection, of a proxy that gave the stream up, or of a service that ends.
// CANCELLED is not: FromPeer leaves it to what is cancelled here.
inline bool IsCut(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable || status.code() == absl::StatusCode::kInternal ||
         status.code() == absl::StatusCode::kUnknown;
}

}  // namespace refit

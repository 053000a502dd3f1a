// The one place where absl::Status and grpc::Status meet. Codes are equal by number.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace refit {

grpc::Status ToGrpc(const absl::Status& status);
// A connection that does not come about says why, without gRPC's own words around the reason.
absl::Status FromGrpc(const grpc::Status& status);

// `status` with `context` before its message: "push of version 3 to 127.0.0.1:50051: ...". OK stays OK, payloads are
// kept.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

}  // namespace refit

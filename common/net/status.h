// Converts between absl::Status and grpc::Status. Codes have the same numbers.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace refit {

grpc::Status ToGrpc(const absl::Status& status);
// For a failed connection, keeps the reason and drops gRPC's text around it.
absl::Status FromGrpc(const grpc::Status& status);
// The same for a call that nobody here has cancelled: CANCELLED becomes UNAVAILABLE. gRPC's servers answer so if a call
// reaches them while they shut down (https://github.com/grpc/grpc/issues/41785), and so do proxies that give it up.
absl::Status FromPeer(const grpc::Status& status);

// `status` with `context` before its message: "push of version 3 to 127.0.0.1:50051: ...". OK stays OK. Payloads are
// kept.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

}  // namespace refit

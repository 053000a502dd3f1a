// Calls of one request and one response that end at once.
#pragma once

#include <grpcpp/support/server_callback.h>

#include "absl/status/status.h"
#include "common/net/status.h"
#include "server/access/admission.h"

namespace refit {

// Ends the call; its response goes out if `status` is OK.
inline grpc::ServerUnaryReactor* EndCall(grpc::CallbackServerContext* call, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

// Ends the call with what `answer()` returns, an absl::Status, unless it is not admitted.
template <typename Answer>
grpc::ServerUnaryReactor* AnswerCall(Admission& admission, grpc::CallbackServerContext* call, Role needed,
                                     const Answer& answer) {
  const absl::Status admitted = admission.Authorize(*call, needed);
  return EndCall(call, admitted.ok() ? answer() : admitted);
}

}  // namespace refit

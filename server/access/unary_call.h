// Answers calls with one request and one response at once.
#pragma once

#include <grpcpp/support/server_callback.h>

#include "absl/status/status.h"
#include "common/net/status.h"
#include "server/access/admission.h"

namespace refit {

// Ends the call. Its response is sent if `status` is OK.
inline grpc::ServerUnaryReactor* EndCall(grpc::CallbackServerContext* call, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

// If the call is admitted, ends it with the absl::Status that `answer()` returns; otherwise with the refusal.
template <typename Answer>
grpc::ServerUnaryReactor* AnswerCall(Admission& admission, grpc::CallbackServerContext* call, Role needed,
                                     const Answer& answer) {
  const absl::Status admitted = admission.Authorize(*call, needed);
  return EndCall(call, admitted.ok() ? answer() : admitted);
}

}  // namespace refit

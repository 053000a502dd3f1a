#include "server/access/admission.h"

namespace refit {

absl::Status Admission::Authorize(const grpc::CallbackServerContext& context, Role needed) {
  absl::Status status = authorizer->Check(context, needed);
  counters.refused_calls.Add(status);
  if (!status.ok()) log.Warning("call refused", {{"peer", context.peer()}, {"error", status.ToString()}});
  return status;
}

}  // namespace refit

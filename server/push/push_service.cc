#include "server/push/push_service.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/access/refused_call.h"
#include "server/access/unary_call.h"
#include "server/fleet/await_workers.h"
#include "server/push/push_reactor.h"

namespace refit {

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* PushService::Push(grpc::CallbackServerContext* context) {
  using Reactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;
  if (absl::Status status = context_.admission.Authorize(*context, Role::kTrainer); !status.ok())
    return RefusedCall<Reactor>::Start(status);
  if (absl::Status status = CheckIsRoot(context_); !status.ok()) return RefusedCall<Reactor>::Start(status);
  return StartPush(context_, *context);
}

grpc::ServerUnaryReactor* PushService::AbortVersion(grpc::CallbackServerContext* context,
                                                    const v1::AbortVersionRequest* request,
                                                    v1::AbortVersionResponse* response) {
  return AnswerCall(context_.admission, context, Role::kTrainer, [&]() -> absl::Status {
    if (absl::Status status = CheckIsRoot(context_); !status.ok()) return status;
    absl::StatusOr<std::shared_ptr<Version>> version = context_.store.FindNumber(request->model(), request->version());
    if (!version.ok()) return version.status();
    const std::string reason = request->reason().empty() ? "aborted on request" : Printable(request->reason());
    if (!context_.store.Abort(**version, reason)) {
      return absl::FailedPreconditionError(
          absl::StrCat("version ", (*version)->Label(), " is not open, so it cannot be aborted"));
    }
    context_.admission.log.Warning("version aborted on request", {{"model", request->model()},
                                                                  {"version", absl::StrCat(request->version())},
                                                                  {"peer", context->peer()},
                                                                  {"reason", reason}});
    *response->mutable_summary() = (*version)->Summary();
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* PushService::ReleaseInstalls(grpc::CallbackServerContext* context,
                                                       const v1::ReleaseInstallsRequest* request,
                                                       v1::ReleaseInstallsResponse* response) {
  return AnswerCall(context_.admission, context, Role::kTrainer, [&]() -> absl::Status {
    if (absl::Status status = CheckIsRoot(context_); !status.ok()) return status;
    const absl::StatusOr<std::shared_ptr<Version>> version =
        context_.store.FindNumber(request->model(), request->version());
    const absl::Status status = version.ok() ? context_.store.ReleaseInstalls(**version) : version.status();
    if (status.ok()) *response->mutable_summary() = (*version)->Summary();
    return status;
  });
}

grpc::ServerUnaryReactor* PushService::AwaitWorkers(grpc::CallbackServerContext* context,
                                                    const v1::AwaitWorkersRequest* request,
                                                    v1::AwaitWorkersResponse* response) {
  if (absl::Status status = context_.admission.Authorize(*context, Role::kTrainer); !status.ok())
    return EndCall(context, status);
  return StartAwaitWorkers(context_.store, context_.workers, context_.waits, *request, *response);
}

}  // namespace refit

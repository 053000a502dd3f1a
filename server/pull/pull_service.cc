#include "server/pull/pull_service.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "common/net/states.h"
#include "server/access/refused_call.h"
#include "server/access/unary_call.h"
#include "server/pull/manifest_reactor.h"
#include "server/pull/pull_reactor.h"
#include "server/pull/watch_reactor.h"

namespace refit {
namespace {

// The version that a report names, if this service has or had it. Fields that the report omits match everything.
// Without an epoch, the report means the version with this number in the current lineage, or else any with this number.
std::optional<WorkerRegistry::Had> VersionOf(const v1::ReportWorkerRequest& report, const VersionStore& store) {
  const std::shared_ptr<Version> version =
      report.has_trainer_epoch() ? store.FindKey(report.model(), {report.trainer_epoch(), report.version()})
                                 : store.FindNumber(report.model(), report.version()).value_or(nullptr);
  if (version == nullptr) return std::nullopt;
  const v1::VersionSummary summary = version->Summary();
  if (!WasCommitted(summary.state())) return std::nullopt;
  if (report.has_manifest_digest() && report.manifest_digest() != summary.manifest_digest()) return std::nullopt;
  return WorkerRegistry::Had{version->key(), summary.manifest_digest()};
}

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* PullService::Pull(grpc::CallbackServerContext* context,
                                                              const grpc::ByteBuffer* request) {
  if (absl::Status status = context_.admission.Authorize(*context, Role::kWorker); !status.ok())
    return RefusedCall<grpc::ServerWriteReactor<grpc::ByteBuffer>>::Start(status);
  return StartPull(context_, *request, *context);
}

grpc::ServerUnaryReactor* PullService::EndLease(grpc::CallbackServerContext* context,
                                                const v1::EndLeaseRequest* request,
                                                v1::EndLeaseResponse* /*response*/) {
  return AnswerCall(context_.admission, context, Role::kWorker, [&] {
    if (context_.leases.End(request->lease())) return absl::OkStatus();
    return absl::NotFoundError(absl::StrCat("there is no lease ", request->lease()));
  });
}

grpc::ServerUnaryReactor* PullService::ReportWorker(grpc::CallbackServerContext* context,
                                                    const v1::ReportWorkerRequest* request,
                                                    v1::ReportWorkerResponse* response) {
  return AnswerCall(context_.admission, context, Role::kWorker, [&] {
    absl::Status status = context_.workers.CheckRoom({request->model(), Printable(request->worker()), request->life()});
    if (status.ok()) {
      const absl::StatusOr<bool> foreign =
          context_.workers.Report(*request, context->peer(), VersionOf(*request, context_.store));
      status = foreign.status();
      response->set_foreign(foreign.value_or(false));
      LogReport(*request, *response);
    }
    context_.admission.counters.limits.Add(status);
    return status;
  });
}

void PullService::LogReport(const v1::ReportWorkerRequest& report, const v1::ReportWorkerResponse& answer) {
  if (report.phase() == v1::WORKER_PHASE_FAILED) {
    context_.admission.log.Warning("worker failed", {{"worker", Printable(report.worker())},
                                                     {"model", Printable(report.model())},
                                                     {"version", absl::StrCat(report.version())},
                                                     {"error", Printable(report.error())}});
  }
  if (!answer.foreign()) return;
  context_.admission.log.Warning(
      "worker has a version of another run, which this service never had",
      {{"worker", Printable(report.worker())},
       {"model", Printable(report.model())},
       {"version", absl::StrCat(report.version())},
       {"trainer_epoch", absl::StrCat(report.trainer_epoch())},
       {"way_out", "a trainer with a larger trainer_epoch, or accept_new_run on the worker"}});
}

grpc::ServerWriteReactor<v1::VersionEvent>* PullService::WatchVersions(grpc::CallbackServerContext* context,
                                                                       const v1::WatchVersionsRequest* request) {
  if (absl::Status status = context_.admission.Authorize(*context, Role::kWorker); !status.ok())
    return RefusedCall<grpc::ServerWriteReactor<v1::VersionEvent>>::Start(status);
  return StartWatch(context_, *request, *context);
}

grpc::ServerWriteReactor<v1::ManifestPart>* PullService::GetManifest(grpc::CallbackServerContext* context,
                                                                     const v1::GetManifestRequest* request) {
  if (absl::Status status = context_.admission.Authorize(*context, Role::kWorker); !status.ok())
    return RefusedCall<grpc::ServerWriteReactor<v1::ManifestPart>>::Start(status);
  return StartManifest(context_, *request, *context);
}

}  // namespace refit

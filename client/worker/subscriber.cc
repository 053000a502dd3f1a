#include "refit/subscriber.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "client/calls/unary_call.h"
#include "client/worker/backoff.h"
#include "client/worker/cut.h"
#include "client/worker/memory_sink.h"
#include "client/worker/no_timeout.h"
#include "client/worker/run_pull.h"
#include "client/worker/subscriber_connection.h"
#include "client/worker/watch_streams.h"
#include "common/process/life.h"
#include "refit/fork_guard.h"
#include "refit/v1/pull.grpc.pb.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kReportTimeout{10};
// Between the streams of a watch that is cut.
constexpr std::chrono::milliseconds kFirstPause{100};
constexpr std::chrono::seconds kLongestPause{2};
// A stream that stood so long was cut. One that ends sooner, again and again, is refused: by a proxy without a service,
// or by a service that ends.
constexpr std::chrono::seconds kStood{1};
constexpr int kMostRefused = 3;

v1::ReportWorkerRequest MakeRequest(const WorkerReport& report, uint64_t life) {
  v1::ReportWorkerRequest request;
  request.set_model(report.model);
  request.set_worker(report.worker);
  request.set_version(report.version);
  if (report.trainer_epoch.has_value()) request.set_trainer_epoch(*report.trainer_epoch);
  if (report.manifest_digest.has_value()) request.set_manifest_digest(*report.manifest_digest);
  request.set_phase(static_cast<v1::WorkerPhase>(report.phase));
  request.set_error(report.error);
  request.set_stage_ns(static_cast<uint64_t>(report.stage_time.count()));
  request.set_install_ns(static_cast<uint64_t>(report.install_time.count()));
  request.set_life(report.life != 0 ? report.life : life);
  return request;
}

absl::StatusOr<bool> ReportTo(const Route& route, const v1::ReportWorkerRequest& request,
                              const SubscriberConnection& connection) {
  const std::unique_ptr<v1::PullService::Stub> stub = v1::PullService::NewStub(route.channel);
  const absl::StatusOr<v1::ReportWorkerResponse> response =
      CallUnary(*stub, &v1::PullService::Stub::ReportWorker, request, kReportTimeout,
                absl::StrCat("report of worker ", request.worker(), " to ", route.address), connection.calls);
  if (!response.ok()) return response.status();
  return response->foreign();
}

// Whether another service would answer the same.
bool IsFinal(const absl::Status& status) {
  return !status.ok() && !absl::IsUnavailable(status) && !absl::IsResourceExhausted(status);
}

}  // namespace

Subscriber::Subscriber(std::shared_ptr<SubscriberConnection> connection) : connection_(std::move(connection)) {}
Subscriber::~Subscriber() = default;

absl::StatusOr<std::unique_ptr<Subscriber>> Subscriber::Connect(const ChannelOptions& options) {
  absl::StatusOr<std::shared_ptr<SubscriberConnection>> connection = ConnectSubscriber(options);
  if (!connection.ok()) return connection.status();
  return absl::WrapUnique(new Subscriber(*std::move(connection)));
}

absl::StatusOr<PullResult> Subscriber::Pull(const PullOptions& options, TensorSink& sink) {
  if (absl::Status status = connection_->CheckNotForked(); !status.ok()) return status;
  return RunPull(connection_, options, sink);
}

absl::StatusOr<PulledVersion> Subscriber::Pull(const PullOptions& options) {
  PulledVersion version;
  MemorySink sink(connection_->pool, version.tensors);
  absl::StatusOr<PullResult> result = Pull(options, sink);
  if (!result.ok()) return result.status();
  version.result = *std::move(result);
  return version;
}

std::unique_ptr<VersionWatch> Subscriber::StartWatch(const WatchOptions& options) {
  v1::WatchVersionsRequest request;
  request.set_model(options.model);
  request.set_worker(options.worker);
  request.set_life(options.life != 0 ? options.life : connection_->life.load());
  if (options.after.has_value()) request.set_after(*options.after);
  if (options.trainer_epoch.has_value()) request.set_trainer_epoch(*options.trainer_epoch);
  return std::make_unique<WatchStream>(connection_, request);
}

std::unique_ptr<WorkerPresence> Subscriber::StartPresence(const std::string& model, const std::string& worker) {
  uint64_t none = 0;
  connection_->life.compare_exchange_strong(none, NewLife());
  v1::WatchVersionsRequest request;
  request.set_model(model);
  request.set_worker(worker);
  request.set_life(connection_->life);
  request.set_presence(true);
  return std::make_unique<PresenceStream>(connection_, request);
}

absl::Status Subscriber::Watch(const WatchOptions& options, const std::function<bool(const VersionSummary&)>& on_event,
                               std::chrono::milliseconds idle_timeout) {
  if (idle_timeout == std::chrono::milliseconds::zero()) idle_timeout = kNoTimeout;
  if (absl::Status status = connection_->CheckNotForked(); !status.ok()) return status;
  Backoff backoff(kFirstPause, kLongestPause);
  int refused = 0;
  while (true) {
    const Clock::time_point begin = Clock::now();
    const std::unique_ptr<VersionWatch> watch = StartWatch(options);
    absl::StatusOr<VersionSummary> version = watch->Next(idle_timeout);
    for (; version.ok(); version = watch->Next(idle_timeout)) {
      if (!on_event(*version)) return absl::OkStatus();
    }
    if (Clock::now() - begin >= kStood) {
      refused = 0;
      backoff.Reset();
    } else if (++refused == kMostRefused) {
      return version.status();
    }
    if (!IsCut(version.status())) return version.status();
    if (!connection_->routes->Take().ok() || !backoff.Wait(connection_->calls->cancelled())) return version.status();
  }
}

// With several services, a version is foreign only if all that answer say so: one that is behind may not have it yet.
absl::StatusOr<bool> Subscriber::Report(const WorkerReport& report) {
  if (absl::Status status = connection_->CheckNotForked(); !status.ok()) return status;
  const v1::ReportWorkerRequest request = MakeRequest(report, connection_->life);
  std::optional<absl::StatusOr<bool>> answer;
  std::shared_ptr<const Route> behind;
  Candidates::Addresses asked;
  while (true) {
    const absl::StatusOr<std::shared_ptr<const Route>> route = connection_->routes->Take(asked);
    if (!route.ok()) return answer.value_or(route.status());
    absl::StatusOr<bool> foreign = ReportTo(**route, request, *connection_);
    if (foreign.ok() && !*foreign) {
      if (behind != nullptr) connection_->routes->Leave(*behind);
      return foreign;
    }
    if (foreign.ok() && behind == nullptr) behind = *route;
    if (absl::IsUnavailable(foreign.status())) connection_->routes->Leave(**route);
    if (!answer.has_value() || foreign.ok()) answer = std::move(foreign);
    asked.insert((*route)->address);
    if (IsFinal(answer->status())) return *answer;
  }
}

void Subscriber::Cancel() {
  if (!connection_->guard.forked()) connection_->calls->Cancel();
}

}  // namespace refit

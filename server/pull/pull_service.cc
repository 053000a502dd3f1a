#include "server/pull/pull_service.h"

#include <grpcpp/alarm.h>

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/limits/within_memory.h"
#include "common/net/byte_buffer.h"
#include "common/net/states.h"
#include "common/net/status.h"
#include "common/net/steady_deadline.h"
#include "server/access/limit_checks.h"
#include "server/access/limit_reached.h"
#include "server/access/refused_call.h"
#include "server/pull/pull_session.h"
#include "server/pull/selection.h"

namespace refit {
namespace {

// Who a request for a model's versions comes from: the name that the worker gave itself, or its address.
template <typename Request>
WorkerId WorkerOf(const Request& request, const grpc::CallbackServerContext& context) {
  return {request.model(), request.worker().empty() ? context.peer() : Printable(request.worker()), request.life()};
}

using Clock = std::chrono::steady_clock;

// What to ask of gRPC once the reactor's lock is released: gRPC may call back from within.
enum class Step { kNothing, kWrite, kFinish };

absl::Status ShuttingDown() { return absl::UnavailableError("the service is shutting down"); }

// Drives a pull session over gRPC: one write in flight, the next message made when it is done; asleep while the version
// has nothing new. Owns itself from Start until OnDone.
class PullReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                          public std::enable_shared_from_this<PullReactor> {
 public:
  PullReactor(PullContext& context, absl::string_view peer)
      : context_(context), stream_(context.admission.peer_streams.Enter(peer)) {
    ++context_.open;
  }
  ~PullReactor() override { --context_.open; }

  void Start(const grpc::ByteBuffer& request_bytes, const grpc::CallbackServerContext& context) {
    self_ = shared_from_this();
    absl::StatusOr<std::unique_ptr<PullSession>> session = OpenSession(request_bytes, context);
    Locked([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (!session.ok()) return End(session.status());
      session_ = *std::move(session);
      return Advance();
    });
  }

  void OnWriteDone(bool ok) override {
    grpc::ByteBuffer sent;  // let go of now, with no lock held: others may wait for its tensor's memory
    Locked([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      sent.Swap(&outgoing_);
      writing_ = false;
      if (ended_) return FinishIfIdle();
      if (!ok) return End(absl::CancelledError("the worker's stream was cut"));
      return Advance();
    });
  }

  void OnCancel() override {
    Locked([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return End(absl::CancelledError("the worker's stream was cut or cancelled"));
    });
  }

  void OnDone() override { self_.reset(); }

 private:
  void Locked(absl::FunctionRef<Step()> change) ABSL_LOCKS_EXCLUDED(mutex_) {
    Step step = Step::kNothing;
    {
      absl::MutexLock lock(&mutex_);
      step = change();
    }
    if (step == Step::kWrite) StartWrite(&outgoing_);
    if (step == Step::kFinish) Finish(ToGrpc(status_));
  }

  absl::StatusOr<std::unique_ptr<PullSession>> OpenSession(const grpc::ByteBuffer& request_bytes,
                                                           const grpc::CallbackServerContext& context) {
    if (!stream_.ok()) return stream_.status();
    if (context_.open > context_.admission.limits.max_pulls) {
      return LimitReached("--max-pulls", absl::StrCat("the service serves ", context_.admission.limits.max_pulls,
                                                      " pulls at a time, which is the limit (--max-pulls); try again "
                                                      "later"));
    }
    v1::PullRequest request;
    if (absl::Status status = Parse(request_bytes, request); !status.ok()) return status;
    return PullSession::Start(context_, request, WorkerOf(request, context), context.peer());
  }

  // Writes the next message, or goes to sleep until there is one.
  Step Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (true) {
      if (session_->lends() && lease_ == 0 && !MakeLease()) return End(ShuttingDown());
      absl::StatusOr<std::optional<grpc::ByteBuffer>> message =
          WithinMemory("what a worker pulls", [&] { return session_->Next(); });
      if (!message.ok()) return End(message.status());
      if (message->has_value()) return Write(**std::move(message));
      if (session_->done()) return lease_ == 0 ? End(absl::OkStatus()) : Lend();
      const uint64_t epoch = ++wait_epoch_;
      waiter_ = session_->Wait([weak = weak_from_this(), epoch] {
        if (const std::shared_ptr<PullReactor> self = weak.lock()) self->OnReady(epoch);
      });
      if (waiter_ != 0) return Sleep();
    }
  }

  Step Write(grpc::ByteBuffer message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    writing_ = true;
    outgoing_ = std::move(message);
    return Step::kWrite;
  }

  Step Sleep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    asleep_since_ = Clock::now();
    const uint64_t epoch = wait_epoch_;
    // A new one each time: the old one's callback may still be returning.
    alarm_ = std::make_unique<grpc::Alarm>();
    alarm_->Set(SteadyDeadline(context_.admission.limits.waiting_interval),
                [weak = weak_from_this(), epoch](bool expired) {
                  const std::shared_ptr<PullReactor> self = weak.lock();
                  if (expired && self != nullptr) self->OnStillWaiting(epoch);
                });
    return Step::kNothing;
  }

  // False if the service takes none any more.
  bool MakeLease() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    lease_ = context_.leases.Add([weak = weak_from_this()] {
      if (const std::shared_ptr<PullReactor> self = weak.lock()) self->OnGivenBack();
    });
    session_->SetLease(lease_);
    return lease_ != 0;
  }

  // Everything is sent: the stream lives on until the worker gives back what it was lent.
  Step Lend() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Report(absl::OkStatus());
    return Step::kNothing;
  }

  void OnGivenBack() {
    Locked([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      given_back_ = true;
      return End(absl::OkStatus());
    });
  }

  // No longer asleep in `epoch`; false if that sleep ended before.
  bool WakeFrom(uint64_t epoch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (ended_ || epoch != wait_epoch_) return false;
    ++wait_epoch_;
    session_->CancelWait(waiter_);
    session_->Waited(Clock::now() - asleep_since_);
    return true;
  }

  // From the thread that converts, or that changes the version's context.
  void OnReady(uint64_t epoch) {
    Locked([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return WakeFrom(epoch) ? Advance() : Step::kNothing; });
  }

  void OnStillWaiting(uint64_t epoch) {
    Locked([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return WakeFrom(epoch) ? Write(session_->WaitingMessage()) : Step::kNothing;
    });
  }

  Step End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (ended_) return Step::kNothing;
    ended_ = true;
    status_ = status;
    context_.admission.counters.failed_pulls.Add(status);
    context_.admission.counters.limits.Add(status);
    alarm_.reset();
    if (session_ != nullptr) {
      session_->CancelWait(waiter_);
      if (!given_back_) session_->Forfeit();
      Report(status);
    }
    if (lease_ != 0) context_.leases.Remove(lease_);
    return FinishIfIdle();
  }

  void Report(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (std::exchange(reported_, true)) return;
    session_->Ended(status);
    Log(status);
  }

  Step FinishIfIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_) return Step::kNothing;
    finished_ = true;
    session_.reset();  // lets go of the version now rather than when gRPC is done
    return Step::kFinish;
  }

  void Log(const absl::Status& status) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (status.ok()) {
      context_.admission.log.Info("pull complete", {{"version", session_->Label()}, {"worker", session_->worker()}});
    } else {
      context_.admission.log.Warning(
          "pull failed",
          {{"version", session_->Label()}, {"worker", session_->worker()}, {"error", status.ToString()}});
    }
  }

  PullContext& context_;
  const absl::StatusOr<PeerStreams::Stream> stream_;
  std::shared_ptr<PullReactor> self_;
  grpc::ByteBuffer outgoing_;

  absl::Mutex mutex_;
  std::unique_ptr<PullSession> session_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool reported_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t lease_ ABSL_GUARDED_BY(mutex_) = 0;  // once memory was lent
  bool given_back_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_;  // set once, before finished_
  uint64_t waiter_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t wait_epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  Clock::time_point asleep_since_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<grpc::Alarm> alarm_ ABSL_GUARDED_BY(mutex_);
};

// Sends each version of a model whose state changed, the newest state only; to a worker that only shows that it is
// there, nothing.
class WatchReactor final : public grpc::ServerWriteReactor<v1::VersionEvent>,
                           public std::enable_shared_from_this<WatchReactor> {
 public:
  WatchReactor(PullContext& context, PeerStreams::Stream stream, const v1::WatchVersionsRequest& request,
               std::unique_ptr<WorkerRegistry::Watch> worker)
      : context_(context),
        stream_(std::move(stream)),
        model_(request.model()),
        presence_(request.presence()),
        after_{request.trainer_epoch(), request.after()},
        every_epoch_(!request.has_trainer_epoch()),
        worker_(std::move(worker)) {}

  void Start() {
    self_ = shared_from_this();
    uint64_t observer = 0;  // none has it
    if (!presence_) {
      observer = context_.store.Observe(model_, [weak = weak_from_this()](const std::shared_ptr<Version>& version) {
        if (const std::shared_ptr<WatchReactor> self = weak.lock()) self->Changed(version);
      });
    }
    const uint64_t end = context_.watches.Add([weak = weak_from_this()] {
      if (const std::shared_ptr<WatchReactor> self = weak.lock()) {
        self->End(ToGrpc(ShuttingDown()));
      }
    });
    if (end == 0) End(ToGrpc(ShuttingDown()));
    {
      absl::MutexLock lock(&mutex_);
      observer_ = observer;
      end_ = end;
    }
    if (presence_) return;
    for (const std::shared_ptr<Version>& version : context_.store.List(model_)) Changed(version);
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok) SetEnding(grpc::Status::CANCELLED);
    }
    Advance();
  }

  void OnCancel() override { End(grpc::Status::CANCELLED); }

  void OnDone() override {
    uint64_t observer = 0;
    uint64_t end = 0;
    {
      absl::MutexLock lock(&mutex_);
      observer = observer_;
      end = end_;
    }
    context_.store.StopObserving(observer);
    context_.watches.Remove(end);
    worker_.reset();
    self_.reset();
  }

 private:
  void Changed(const std::shared_ptr<Version>& version) {
    const VersionKey key = version->key();
    if (every_epoch_ ? key.number <= after_.number : !(after_ < key)) return;
    {
      absl::MutexLock lock(&mutex_);
      changed_[key] = version;
    }
    Advance();
  }

  void Advance() ABSL_LOCKS_EXCLUDED(mutex_) {
    const Step step = NextStep();
    if (step == Step::kWrite) StartWrite(&event_);
    if (step == Step::kFinish) Finish(ending_);
  }

  void End(const grpc::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      absl::MutexLock lock(&mutex_);
      SetEnding(status);
    }
    Advance();
  }

  void SetEnding(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!std::exchange(ended_, true)) ending_ = status;
  }

  Step NextStep() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (writing_ || finished_) return Step::kNothing;
    if (ended_) {
      finished_ = true;
      return Step::kFinish;
    }
    if (changed_.empty()) return Step::kNothing;
    *event_.mutable_version() = changed_.begin()->second->Summary();
    changed_.erase(changed_.begin());
    writing_ = true;
    return Step::kWrite;
  }

  PullContext& context_;
  const PeerStreams::Stream stream_;
  const std::string model_;
  const bool presence_;
  const VersionKey after_;
  const bool every_epoch_;
  std::unique_ptr<WorkerRegistry::Watch> worker_;  // until OnDone
  std::shared_ptr<WatchReactor> self_;
  v1::VersionEvent event_;

  absl::Mutex mutex_;
  uint64_t observer_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t end_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<VersionKey, std::shared_ptr<Version>> changed_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status ending_;  // set once, before ended_ is seen
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

// Sends a manifest part by part. gRPC calls one reaction at a time here, so no lock.
class ManifestReactor final : public grpc::ServerWriteReactor<v1::ManifestPart> {
 public:
  explicit ManifestReactor(absl::StatusOr<PeerStreams::Stream> stream) : stream_(std::move(stream)) {}

  void Start(std::unique_ptr<ManifestReactor> self, PullContext& context, const v1::GetManifestRequest& request) {
    self_ = std::move(self);
    const absl::Status status = stream_.ok() ? Select(context, request) : stream_.status();
    context.admission.counters.limits.Add(status);
    if (!status.ok()) return Finish(ToGrpc(status));
    WritePart();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    if (part_.last()) return Finish(grpc::Status::OK);
    WritePart();
  }

  void OnDone() override { const std::unique_ptr<ManifestReactor> ends_here = std::move(self_); }

 private:
  absl::Status Select(PullContext& context, const v1::GetManifestRequest& request) {
    if (absl::Status status = CheckSelection(request, context.admission.limits); !status.ok()) return status;
    absl::StatusOr<std::shared_ptr<Version>> version = context.store.Find(request.model(), request.version());
    if (!version.ok()) return version.status();
    version_ = *std::move(version);
    if (absl::Status status = version_->CheckPullable(); !status.ok()) return status;
    parts_ = &context.parts;
    absl::StatusOr<SelectionRequest> wanted = SelectionOf(request);
    if (!wanted.ok()) return wanted.status();
    absl::StatusOr<std::vector<Selected>> selection = SelectTensors(*version_, *wanted);
    if (!selection.ok()) return selection.status();
    selection_ = *std::move(selection);
    return absl::OkStatus();
  }

  void WritePart() {
    part_.Clear();
    FillManifestPart(*version_, selection_, *parts_, next_, part_);
    next_ += part_.entries_size();
    StartWrite(&part_);
  }

  const absl::StatusOr<PeerStreams::Stream> stream_;
  std::unique_ptr<ManifestReactor> self_;
  std::shared_ptr<Version> version_;
  std::vector<Selected> selection_;
  PartTable* parts_ = nullptr;
  v1::ManifestPart part_;
  size_t next_ = 0;
};

// The version that a report means, if this service has or had it. What the report leaves out, it need not match: peers
// that tell no epoch mean the present lineage, or else what there is of that number.
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
  auto reactor = std::make_shared<PullReactor>(context_, context->peer());
  reactor->Start(*request, *context);
  return reactor.get();
}

grpc::ServerUnaryReactor* PullService::EndLease(grpc::CallbackServerContext* context,
                                                const v1::EndLeaseRequest* request,
                                                v1::EndLeaseResponse* /*response*/) {
  if (absl::Status status = context_.admission.Authorize(*context, Role::kWorker); !status.ok())
    return Refuse(context, status);
  const bool ended = context_.leases.End(request->lease());
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ended ? grpc::Status::OK
                        : ToGrpc(absl::NotFoundError(absl::StrCat("there is no lease ", request->lease()))));
  return reactor;
}

grpc::ServerUnaryReactor* PullService::ReportWorker(grpc::CallbackServerContext* context,
                                                    const v1::ReportWorkerRequest* request,
                                                    v1::ReportWorkerResponse* response) {
  if (absl::Status status = context_.admission.Authorize(*context, Role::kWorker); !status.ok())
    return Refuse(context, status);
  absl::Status status = context_.workers.CheckRoom({request->model(), Printable(request->worker()), request->life()});
  if (status.ok()) {
    const absl::StatusOr<bool> foreign =
        context_.workers.Report(*request, context->peer(), VersionOf(*request, context_.store));
    status = foreign.status();
    response->set_foreign(foreign.value_or(false));
    LogReport(*request, *response);
  }
  context_.admission.counters.limits.Add(status);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
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
  const WorkerId worker = WorkerOf(*request, *context);
  absl::StatusOr<PeerStreams::Stream> stream = context_.admission.peer_streams.Enter(context->peer());
  const absl::Status status = stream.ok() ? context_.workers.CheckRoom(worker) : stream.status();
  context_.admission.counters.limits.Add(status);
  if (!status.ok()) return RefusedCall<grpc::ServerWriteReactor<v1::VersionEvent>>::Start(status);
  auto reactor = std::make_shared<WatchReactor>(context_, *std::move(stream), *request,
                                                context_.workers.StartWatch(worker, context->peer()));
  reactor->Start();
  return reactor.get();
}

grpc::ServerWriteReactor<v1::ManifestPart>* PullService::GetManifest(grpc::CallbackServerContext* context,
                                                                     const v1::GetManifestRequest* request) {
  if (absl::Status status = context_.admission.Authorize(*context, Role::kWorker); !status.ok())
    return RefusedCall<grpc::ServerWriteReactor<v1::ManifestPart>>::Start(status);
  auto reactor = std::make_unique<ManifestReactor>(context_.admission.peer_streams.Enter(context->peer()));
  ManifestReactor& started = *reactor;
  started.Start(std::move(reactor), context_, *request);
  return &started;
}

}  // namespace refit

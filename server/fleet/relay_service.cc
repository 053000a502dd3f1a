#include "server/fleet/relay_service.h"

#include <memory>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "common/net/status.h"
#include "server/access/refused_call.h"
#include "server/access/unary_call.h"
#include "server/fleet/relays_below.h"
#include "server/process/step.h"

namespace refit {
namespace {

// Sends the services above a relay, and again when they change.
class AttendReactor final : public grpc::ServerWriteReactor<v1::Ancestry>,
                            public std::enable_shared_from_this<AttendReactor> {
 public:
  AttendReactor(RelayContext& context, PeerStreams::Stream stream, std::unique_ptr<RelaysBelow::Attendance> attendance)
      : context_(context), stream_(std::move(stream)), attendance_(std::move(attendance)) {}

  void Start() {
    self_ = shared_from_this();
    const uint64_t observer = context_.ancestry.Observe([weak = weak_from_this()] {
      if (const std::shared_ptr<AttendReactor> self = weak.lock()) self->Changed();
    });
    const uint64_t end = context_.attendances.Add([weak = weak_from_this()] {
      if (const std::shared_ptr<AttendReactor> self = weak.lock()) self->End(ToGrpc(ShuttingDown()));
    });
    {
      absl::MutexLock lock(&mutex_);
      observer_ = observer;
      end_ = end;
    }
    if (end == 0) End(ToGrpc(ShuttingDown()));
    Changed();
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
    }
    ok ? Advance() : End(grpc::Status::CANCELLED);
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
    context_.ancestry.StopObserving(observer);
    context_.attendances.Remove(end);
    attendance_.reset();
    self_.reset();
  }

 private:
  void Changed() {
    {
      absl::MutexLock lock(&mutex_);
      changed_ = true;
    }
    Advance();
  }

  void End(const grpc::Status& status) {
    {
      absl::MutexLock lock(&mutex_);
      if (!std::exchange(ended_, true)) ending_ = status;
    }
    Advance();
  }

  void Advance() ABSL_LOCKS_EXCLUDED(mutex_) {
    const Step step = NextStep();
    if (step == Step::kWrite) StartWrite(&ancestry_);
    if (step == Step::kFinish) Finish(ending_);
  }

  Step NextStep() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (writing_ || finished_) return Step::kNothing;
    if (ended_) {
      finished_ = true;
      return Step::kFinish;
    }
    if (!std::exchange(changed_, false)) return Step::kNothing;
    ancestry_ = context_.ancestry.Get();
    writing_ = true;
    return Step::kWrite;
  }

  RelayContext& context_;
  const PeerStreams::Stream stream_;
  std::unique_ptr<RelaysBelow::Attendance> attendance_;  // kept until OnDone
  std::shared_ptr<AttendReactor> self_;
  v1::Ancestry ancestry_;

  absl::Mutex mutex_;
  uint64_t observer_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t end_ ABSL_GUARDED_BY(mutex_) = 0;
  bool changed_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status ending_;  // set once, before ended_ is seen
};

}  // namespace

grpc::ServerWriteReactor<v1::Ancestry>* RelayService::Attend(grpc::CallbackServerContext* call,
                                                             const v1::AttendRequest* request) {
  using Refused = RefusedCall<grpc::ServerWriteReactor<v1::Ancestry>>;
  if (absl::Status status = context_.admission.Authorize(*call, Role::kRelay); !status.ok())
    return Refused::Start(status);
  absl::StatusOr<PeerStreams::Stream> stream = context_.admission.peer_streams.Enter(call->peer());
  context_.admission.counters.limits.Add(stream.status());
  if (!stream.ok()) return Refused::Start(stream.status());
  absl::StatusOr<std::unique_ptr<RelaysBelow::Attendance>> attendance = context_.workers.relays().Attend(*request);
  if (!attendance.ok()) return Refused::Start(attendance.status());
  const auto reactor = std::make_shared<AttendReactor>(context_, *std::move(stream), *std::move(attendance));
  reactor->Start();
  return reactor.get();
}

grpc::ServerUnaryReactor* RelayService::ReportBelow(grpc::CallbackServerContext* call,
                                                    const v1::ReportBelowRequest* request,
                                                    v1::ReportBelowResponse* /*response*/) {
  return AnswerCall(context_.admission, call, Role::kRelay, [&] { return context_.workers.relays().Report(*request); });
}

}  // namespace refit

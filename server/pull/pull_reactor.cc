#include "server/pull/pull_reactor.h"

#include <grpcpp/alarm.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/limits/within_memory.h"
#include "common/net/byte_buffer.h"
#include "common/net/status.h"
#include "common/net/steady_deadline.h"
#include "common/net/tcp_state.h"
#include "server/access/limit_reached.h"
#include "server/access/refused_call.h"
#include "server/process/step.h"
#include "server/pull/pull_session.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kLongPull{1};

// Sends a pull session over gRPC. One write is in flight at a time; when it is done, the next message is made. The
// reactor sleeps while the version has nothing new. Owns itself from Start until OnDone.
class PullReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                          public std::enable_shared_from_this<PullReactor> {
 public:
  PullReactor(PullContext& context, absl::string_view peer)
      : context_(context), peer_(peer), stream_(context.admission.peer_streams.Enter(peer)) {
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
    grpc::ByteBuffer sent;  // released now, with no lock held: others may wait for its tensor's memory
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

  // Writes the next message, or sleeps until there is one.
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
    // A new alarm each time: the callback of the old one may still be returning.
    alarm_ = std::make_unique<grpc::Alarm>();
    alarm_->Set(SteadyDeadline(context_.admission.limits.waiting_interval),
                [weak = weak_from_this(), epoch](bool expired) {
                  const std::shared_ptr<PullReactor> self = weak.lock();
                  if (expired && self != nullptr) self->OnStillWaiting(epoch);
                });
    return Step::kNothing;
  }

  // False if the service accepts no more leases.
  bool MakeLease() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    lease_ = context_.leases.Add([weak = weak_from_this()] {
      if (const std::shared_ptr<PullReactor> self = weak.lock()) self->OnGivenBack();
    });
    session_->SetLease(lease_);
    return lease_ != 0;
  }

  // Everything is sent. The stream stays open until the worker returns the memory that it was lent.
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

  // Ends the sleep of `epoch`. False if that sleep has already ended.
  bool WakeFrom(uint64_t epoch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (ended_ || epoch != wait_epoch_) return false;
    ++wait_epoch_;
    session_->CancelWait(waiter_);
    session_->Waited(Clock::now() - asleep_since_);
    return true;
  }

  // Called by the thread that converts, or that changes the version's state.
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
    session_.reset();  // releases the version now, not only when gRPC is done
    return Step::kFinish;
  }

  void Log(const absl::Status& status) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const SentChunks& sent = session_->sent();
    if (status.ok()) {
      context_.admission.log.Info("pull complete", {{"version", session_->Label()},
                                                    {"worker", session_->worker()},
                                                    {"base", session_->base()},
                                                    {"bytes", absl::StrCat(sent.tensor_bytes)},
                                                    {"wire_bytes", absl::StrCat(sent.wire_bytes)},
                                                    {"raw_chunks", absl::StrCat(sent.raw)},
                                                    {"delta_chunks", absl::StrCat(sent.delta)},
                                                    {"unchanged_chunks", absl::StrCat(sent.unchanged)},
                                                    {"changed_elements", absl::StrCat(sent.changed_elements)}});
      if (Clock::now() - began_ >= kLongPull) SayWhatHoldsBack();
    } else {
      context_.admission.log.Warning(
          "pull failed",
          {{"version", session_->Label()}, {"worker", session_->worker()}, {"error", status.ToString()}});
    }
  }

  // The kernel knows. It is not asked for pulls that are short anyway.
  void SayWhatHoldsBack() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const std::optional<TcpBuffers> buffers = LargestTcpBuffers();
    const absl::StatusOr<TcpState> state = StateOfConnection(peer_);
    if (!buffers.has_value() || !state.ok()) return;
    const std::string what = HeldBackBy(TcpState(), *state, *buffers);
    if (what.empty()) return;
    context_.admission.log.Warning("the kernel holds a pull back",
                                   {{"worker", session_->worker()}, {"peer", peer_}, {"by", what}});
  }

  PullContext& context_;
  const std::string peer_;
  const Clock::time_point began_ = Clock::now();
  const absl::StatusOr<PeerStreams::Stream> stream_;
  std::shared_ptr<PullReactor> self_;
  grpc::ByteBuffer outgoing_;

  absl::Mutex mutex_;
  std::unique_ptr<PullSession> session_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool reported_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t lease_ ABSL_GUARDED_BY(mutex_) = 0;  // set once memory was lent
  bool given_back_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_;  // set once, before finished_
  uint64_t waiter_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t wait_epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  Clock::time_point asleep_since_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<grpc::Alarm> alarm_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* StartPull(PullContext& pulls, const grpc::ByteBuffer& request,
                                                      const grpc::CallbackServerContext& call) {
  const auto reactor = std::make_shared<PullReactor>(pulls, call.peer());
  reactor->Start(request, call);
  return reactor.get();
}

}  // namespace refit

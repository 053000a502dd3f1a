#include "server/push/push_reactor.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/limits/within_memory.h"
#include "common/net/byte_buffer.h"
#include "common/net/heap_anchor.h"
#include "common/net/received_message.h"
#include "common/net/status.h"
#include "common/net/steady_deadline.h"
#include "server/access/limit_reached.h"
#include "server/push/push_session.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

// How many messages may wait for conversion. While there are more, nothing is read, and HTTP/2 flow control stops the
// trainer.
constexpr size_t kMaxQueuedMessages = 2;
// If an alarm fires this late, the process was not running.
constexpr std::chrono::seconds kOverslept{1};

// Connects gRPC's reactor calls with the session. Messages are handled on a strand of the conversion threads, so that
// gRPC's own threads only move bytes. Owns itself from Push until OnDone; work on the strand holds further references.
class PushReactor final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                          public std::enable_shared_from_this<PushReactor> {
 public:
  PushReactor(PushContext& context, std::string peer)
      : context_(context),
        stream_(context.admission.peer_streams.Enter(peer)),
        session_(context, std::move(peer)),
        strand_(std::make_shared<Strand>(context.convert)) {
    ++context_.open;
  }
  ~PushReactor() override { --context_.open; }

  void Start() {
    self_ = shared_from_this();
    if (!stream_.ok()) return End(stream_.status());
    if (context_.open > context_.admission.limits.max_pushes) {
      return End(LimitReached("--max-pushes", absl::StrCat("the service has ", context_.admission.limits.max_pushes,
                                                           " push streams open, which is the limit (--max-pushes); "
                                                           "try again later")));
    }
    {
      absl::MutexLock lock(&mutex_);
      last_message_ = Clock::now();
    }
    ArmAlarm();
    StartRead(&incoming_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      strand_->Post([self = shared_from_this()] { self->OnStreamEnded(); });
      return;
    }
    grpc::ByteBuffer message;
    message.Swap(&incoming_);
    const uint64_t bytes = message.Length();
    bool read_on = false;
    {
      absl::MutexLock lock(&mutex_);
      // Posted before `reading_` is reset. From then on OnMessage may start the next read, whose message must come
      // after this one.
      strand_->Post(
          [self = shared_from_this(), message = std::move(message)]() mutable { self->OnMessage(std::move(message)); });
      ++queued_;
      queued_bytes_ += bytes;
      read_on = reading_ = MayRead();
    }
    if (read_on) StartRead(&incoming_);
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok) outgoing_.clear();
    }
    Flush();
  }

  void OnCancel() override {
    strand_->Post([self = shared_from_this()] {
      self->Fail(absl::CancelledError(absl::StrCat(
          "the trainer's stream was cut or cancelled: it ended, its network broke, or it did not answer for ",
          absl::FormatDuration(absl::FromChrono(self->context_.admission.limits.peer_timeout)), " (--peer-timeout)")));
    });
  }

  void OnDone() override {
    {
      absl::MutexLock lock(&mutex_);
      alarm_.reset();
    }
    self_.reset();
  }

 private:
  // Runs on the strand.
  void OnMessage(grpc::ByteBuffer buffer) {
    anchor_.Hold(buffer);
    inbox_.emplace_back(std::move(buffer));
    HandleInbox();
  }

  // Handles messages until the inbox is empty, or the first message must wait for memory.
  void HandleInbox() {
    while (!inbox_.empty()) {
      Handle(inbox_.front());
      if (session_.lacks_memory() && !ended()) {
        if (SleepUntilMemory()) return;
        continue;
      }
      const uint64_t bytes = inbox_.front().size();
      inbox_.pop_front();
      Handled(bytes);
    }
    if (read_all_) OnReadAll();
  }

  void Handle(const ReceivedMessage& message) {
    if (ended()) return;
    absl::StatusOr<PushSession::Answer> answer =
        WithinMemory("what a trainer sends", [&] { return session_.Handle(message); });
    if (!answer.ok()) {
      End(answer.status());
    } else if (answer->has_value()) {
      Send(**answer);
    }
    FollowVersion();
  }

  // Returns false if there may be memory already. While it sleeps, the stream reads everything that the trainer's
  // window allows. The trainer then waits for an acknowledgement rather than for HTTP/2 flow control, so it can be told
  // why.
  bool SleepUntilMemory() {
    ReadOn([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { read_ahead_bytes_ = session_.window_bytes(); });
    return session_.WaitForMemory([weak = weak_from_this()] {
      const std::shared_ptr<PushReactor> self = weak.lock();
      if (self != nullptr) self->strand_->Post([self] { self->HandleInbox(); });
    });
  }

  // Call it when one message was handled.
  void Handled(uint64_t bytes) {
    ReadOn([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      last_message_ = Clock::now();
      --queued_;
      queued_bytes_ -= bytes;
      read_ahead_bytes_ = 0;
    });
  }

  // Makes `change`, and reads the next message if that is possible then.
  void ReadOn(absl::FunctionRef<void()> change) {
    bool read_on = false;
    {
      absl::MutexLock lock(&mutex_);
      change();
      read_on = !reading_ && !ending_.has_value() && MayRead();
      reading_ = reading_ || read_on;
    }
    if (read_on) StartRead(&incoming_);
  }

  bool MayRead() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return queued_ < kMaxQueuedMessages || queued_bytes_ < read_ahead_bytes_;
  }

  // Runs on the strand. Tells the trainer about the progress of other ranks, and waits for further progress.
  void FollowVersion() {
    while (!following_ && !ended() && session_.is_open()) {
      const absl::StatusOr<PushSession::Answer> answer = session_.Poll();
      if (!answer.ok()) return End(answer.status());
      if (answer->has_value()) {
        Send(**answer);
        if (session_.finished() && read_all_) End(absl::OkStatus());
        continue;
      }
      following_ = session_.Wait([weak = weak_from_this()] {
        const std::shared_ptr<PushReactor> self = weak.lock();
        if (self != nullptr) self->strand_->Post([self] { self->OnVersionChanged(); });
      }) != 0;
    }
  }

  void OnVersionChanged() {
    following_ = false;
    FollowVersion();
  }

  // Runs on the strand, after all messages were put into the inbox.
  void OnStreamEnded() {
    read_all_ = true;
    if (inbox_.empty()) OnReadAll();
  }

  // Called when all messages are handled.
  void OnReadAll() {
    // A trainer that has requested the commit sends nothing more, and waits for the answer.
    if (session_.committing() && session_.is_open()) return;
    Fail(absl::FailedPreconditionError(
        absl::StrCat(session_.Label(), ": the stream ended before commit or abort; the version is aborted")));
  }

  // Ends the stream. `status` is used only if the push has not finished.
  void Fail(const absl::Status& status) {
    if (ended()) return;
    session_.Abandon(std::string(status.message()));
    End(session_.finished() ? absl::OkStatus() : status);
  }

  bool ended() {
    absl::MutexLock lock(&mutex_);
    return ending_.has_value();
  }

  void Send(const v1::PushResponse& response) {
    {
      absl::MutexLock lock(&mutex_);
      outgoing_.push_back(Serialize(response));
    }
    Flush();
  }

  void End(const absl::Status& status) {
    {
      absl::MutexLock lock(&mutex_);
      if (ending_.has_value()) return;
      ending_ = ToGrpc(status);
    }
    context_.admission.counters.failed_pushes.Add(status);
    context_.admission.counters.limits.Add(status);
    if (!status.ok())
      context_.admission.log.Warning("push failed", {{"push", session_.Label()}, {"error", status.ToString()}});
    Flush();
  }

  // Starts the next write, or finishes once all are written.
  void Flush() {
    bool finish = false;
    {
      absl::MutexLock lock(&mutex_);
      if (writing_ || finished_) return;
      if (!outgoing_.empty()) {
        writing_ = true;
        being_written_ = std::move(outgoing_.front());
        outgoing_.pop_front();
      } else if (ending_.has_value()) {
        finish = finished_ = true;
      } else {
        return;
      }
    }
    if (finish) {
      Finish(*ending_);
    } else {
      StartWrite(&being_written_);
    }
  }

  // The alarm fires every few seconds, and when the stream has been silent for too long.
  void ArmAlarm() {
    absl::MutexLock lock(&mutex_);
    const Clock::duration until_idle = last_message_ + context_.admission.limits.push_idle_timeout - Clock::now();
    const Clock::duration soon = context_.admission.limits.waiting_interval;
    const Clock::duration wait = std::clamp(until_idle, Clock::duration::zero(), soon);
    rings_at_ = Clock::now() + wait;
    // A new alarm each time: the callback of the old one may still be returning.
    alarm_ = std::make_unique<grpc::Alarm>();
    alarm_->Set(SteadyDeadline(wait), [weak = weak_from_this()](bool expired) {
      const std::shared_ptr<PushReactor> self = weak.lock();
      if (expired && self != nullptr) self->strand_->Post([self] { self->OnAlarm(); });
    });
  }

  // Runs on the strand, so never while a message is being handled.
  void OnAlarm() {
    if (ended()) return;
    ForgiveOversleeping();
    if (!session_.keeps_trainer_waiting()) return CheckIdle();
    if (absl::Status status = session_.CheckPatience(); !status.ok()) return Fail(status);
    Send(session_.WaitingMessage());
    {
      absl::MutexLock lock(&mutex_);
      last_message_ = Clock::now();  // the silence is not the trainer's fault
    }
    ArmAlarm();
  }

  // After a stop (SIGSTOP, `docker pause`, a frozen machine) the service has read nothing for a while. What the trainer
  // sent meanwhile is still in the sockets, so the trainer was not silent: there is time at least to read it.
  void ForgiveOversleeping() {
    absl::MutexLock lock(&mutex_);
    const Clock::time_point now = Clock::now();
    const Clock::duration late = now - rings_at_;
    if (late < kOverslept) return;
    last_message_ = std::max(last_message_ + late, now - context_.admission.limits.push_idle_timeout + kOverslept);
    session_.Overslept(late);
  }

  void CheckIdle() {
    bool idle = false;
    {
      absl::MutexLock lock(&mutex_);
      idle = queued_ == 0 && Clock::now() - last_message_ >= context_.admission.limits.push_idle_timeout;
    }
    if (!idle) return ArmAlarm();
    Fail(absl::DeadlineExceededError(
        absl::StrCat(session_.Label(), ": no message came for ",
                     absl::FormatDuration(absl::FromChrono(context_.admission.limits.push_idle_timeout)),
                     ", which is the limit (--push-idle-timeout), though the trainer's process answers; the version is "
                     "aborted. If it may pause for so long, ",
                     HowToRaise("push_idle_timeout"))));
  }

  PushContext& context_;
  const absl::StatusOr<PeerStreams::Stream> stream_;
  PushSession session_;  // used only on the strand
  const std::shared_ptr<Strand> strand_;
  // Used only on the strand.
  HeapAnchor anchor_;
  std::deque<ReceivedMessage> inbox_;
  bool following_ = false;  // waiting for the version to wake it
  bool read_all_ = false;   // the trainer will send nothing more
  std::shared_ptr<PushReactor> self_;
  grpc::ByteBuffer incoming_;
  grpc::ByteBuffer being_written_;

  absl::Mutex mutex_;
  std::unique_ptr<grpc::Alarm> alarm_ ABSL_GUARDED_BY(mutex_);
  Clock::time_point last_message_ ABSL_GUARDED_BY(mutex_);
  Clock::time_point rings_at_ ABSL_GUARDED_BY(mutex_);
  size_t queued_ ABSL_GUARDED_BY(mutex_) = 0;  // messages read but not handled
  uint64_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t read_ahead_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // beyond kMaxQueuedMessages, while there is no memory
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<grpc::ByteBuffer> outgoing_ ABSL_GUARDED_BY(mutex_);
  std::optional<grpc::Status> ending_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* StartPush(PushContext& pushes,
                                                                       const grpc::CallbackServerContext& call) {
  auto reactor = std::make_shared<PushReactor>(pushes, call.peer());
  reactor->Start();
  return reactor.get();
}

}  // namespace refit

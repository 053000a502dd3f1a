#include "common/net/raw_call.h"

#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/client_callback.h>

#include <condition_variable>
#include <iterator>
#include <list>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/net/status.h"
#include "common/net/steady_deadline.h"

namespace refit {
namespace {

// A cancelled call ends sooner than this, unless its peer does not read.
constexpr std::chrono::milliseconds kDonePatience{50};

}  // namespace

// gRPC calls the On... methods from its own threads; RawCall calls the others. OnDone is gRPC's last call. The reactor
// must not be destroyed in OnDone: that may destroy the channel's last reference, and a channel joins the very thread
// that calls OnDone.
class RawCall::Reactor final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit Reactor(const std::shared_ptr<grpc::Channel>& channel) : stub_(channel) {}

  void Start(const std::string& method) {
    method_ = method;
    stub_.PrepareBidiStreamingCall(context_.get(), method, grpc::StubOptions(), this);
    AddHold();  // until Release: other threads than gRPC's start reads and writes
    reading_ = true;
    StartRead(&incoming_);
    StartCall();
  }

  absl::Status Write(grpc::ByteBuffer message, std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    if (!AwaitWritten(lock, timeout)) return GiveUp("the peer took no message", timeout);
    if (write_failed_ || writes_done_ || released_ || cancelled_) return Ended();
    StartWriting(std::move(message));
    return absl::OkStatus();
  }

  absl::Status WriteTogether(absl::FunctionRef<void(std::string&)> append, const Batching& batching,
                             std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    if (!Await(lock, timeout, [&] { return !writing_ || pieces_.size() < batching.bytes; })) {
      return GiveUp("the peer took no message", timeout);
    }
    if (write_failed_ || writes_done_ || released_ || cancelled_) return Ended();
    if (pieces_.empty()) BeginPieces(batching);
    append(pieces_);
    if (pieces_.size() >= batching.bytes) FlushPieces();
    return absl::OkStatus();
  }

  absl::Status WritesDone(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    if (!AwaitWritten(lock, timeout)) return GiveUp("the peer took no message", timeout);
    if (write_failed_ || finishing_ || cancelled_) return Ended();
    if (!released_ && !std::exchange(writes_done_, true)) StartWritesDone();
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<grpc::ByteBuffer>> Read(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    FlushPieces();  // the peer may be waiting for them
    if (!Await(lock, timeout, [this] { return !reading_; })) return GiveUp("the peer sent nothing", timeout);
    if (reading_) return std::nullopt;  // the call was cancelled
    std::optional<grpc::ByteBuffer> message = std::exchange(received_, std::nullopt);
    if (message.has_value() && !released_) ReadNext();
    return message;
  }

  absl::Status Finish(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    finishing_ = true;
    Release();
    if (!Await(lock, timeout, [this] { return done_; })) return GiveUp("the peer did not end the call", timeout);
    changed_.wait_for(lock, kDonePatience, [this] { return done_; });  // if the call was cancelled
    if (!gave_up_.ok()) return gave_up_;
    if (!done_) return absl::CancelledError(absl::StrCat(method_, ": cancelled"));
    return cancelled_ ? FromGrpc(status_) : FromPeer(status_);
  }

  // Wakes waiting threads at once. gRPC itself may not be able to end the call before the peer has read a half-written
  // message.
  void Cancel() {
    std::shared_ptr<grpc::ClientContext> context;
    {
      const std::lock_guard lock(mutex_);
      context = context_;
      cancelled_ = true;
      changed_.notify_all();
    }
    if (context != nullptr) context->TryCancel();
  }

  // False if gRPC has not released the call by then.
  bool CancelAndAwaitDone(std::chrono::milliseconds timeout) {
    Cancel();
    if (alarm_ != nullptr) alarm_->Cancel();
    std::unique_lock lock(mutex_);
    Release();
    return changed_.wait_for(lock, timeout, [this] { return done_ && !alarm_is_set_; });
  }

  void OnReadDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    reading_ = false;
    if (ok && !released_) received_ = std::move(incoming_);
    incoming_.Clear();
    // The status comes only after the last message, so unread messages are dropped.
    if (ok && released_) ReadNext();
    // The peer has ended the call. As long as gRPC has not, it keeps borrowed messages that it will never send.
    if (!ok) Release();
    changed_.notify_all();
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) write_failed_ = true;
    outgoing_.Clear();
    if (flush_ && ok && !released_) FlushPieces();
    changed_.notify_all();
  }

  void OnDone(const grpc::Status& status) override {
    LetGoOfContext();
    const std::lock_guard lock(mutex_);
    status_ = status;
    done_ = true;
    changed_.notify_all();
  }

 private:
  // The call, and what it borrows, is there as long as its context. Before `done_`, since whoever waits for that may
  // let go of the channel, whose last reference must not be the context's.
  void LetGoOfContext() {
    std::shared_ptr<grpc::ClientContext> context;
    const std::lock_guard lock(mutex_);
    context.swap(context_);
  }

  // Also returns true once the call is cancelled.
  template <typename Condition>
  bool Await(std::unique_lock<std::mutex>& lock, std::chrono::milliseconds timeout, Condition condition) {
    return changed_.wait_for(lock, timeout, [&] { return cancelled_ || condition(); });
  }

  // Waits until gRPC has taken everything that was passed to write.
  bool AwaitWritten(std::unique_lock<std::mutex>& lock, std::chrono::milliseconds timeout) {
    FlushPieces();
    return Await(lock, timeout, [this] { return !writing_ && (pieces_.empty() || write_failed_ || released_); });
  }

  void BeginPieces(const Batching& batching) {
    batching_ = batching;
    pieces_.reserve(batching.bytes + batching.max_piece_bytes);
    if (std::exchange(alarm_is_set_, true)) return;
    // A new alarm each time: the callback of the old one may still be returning.
    alarm_ = std::make_unique<grpc::Alarm>();
    alarm_->Set(SteadyDeadline(batching.wait), [this](bool) { OnAlarm(); });
  }

  // Also called when the alarm was cancelled.
  void OnAlarm() {
    const std::lock_guard lock(mutex_);
    alarm_is_set_ = false;
    FlushPieces();
    changed_.notify_all();
  }

  // At once, or when gRPC has taken the current message.
  void FlushPieces() {
    if (pieces_.empty() || write_failed_ || released_ || writes_done_) return;
    flush_ = writing_;
    if (!writing_) StartWriting(batching_->message(std::exchange(pieces_, {})));
  }

  void StartWriting(grpc::ByteBuffer message) {
    outgoing_ = std::move(message);
    writing_ = true;
    StartWrite(&outgoing_);
  }

  void ReadNext() {
    reading_ = true;
    StartRead(&incoming_);
  }

  // Lets gRPC end the call. From here on only its own threads start operations.
  void Release() {
    if (std::exchange(released_, true)) return;
    if (std::exchange(received_, std::nullopt).has_value()) ReadNext();
    RemoveHold();
  }

  absl::Status GiveUp(absl::string_view what, std::chrono::milliseconds timeout) {
    if (gave_up_.ok()) {
      gave_up_ = absl::DeadlineExceededError(absl::StrCat(method_, ": ", what, " for ", timeout.count(), " ms"));
    }
    if (context_ != nullptr) context_->TryCancel();
    cancelled_ = true;
    changed_.notify_all();
    return gave_up_;
  }

  absl::Status Ended() const { return absl::UnavailableError(absl::StrCat(method_, ": the call has ended")); }

  std::shared_ptr<grpc::ClientContext> context_ = std::make_shared<grpc::ClientContext>();  // null once it is done
  grpc::GenericStub stub_;
  std::string method_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool reading_ = false;  // gRPC fills incoming_
  bool writing_ = false;  // gRPC holds outgoing_
  bool write_failed_ = false;
  bool writes_done_ = false;
  bool finishing_ = false;
  bool released_ = false;
  bool cancelled_ = false;
  bool done_ = false;
  grpc::ByteBuffer incoming_;
  grpc::ByteBuffer outgoing_;
  std::string pieces_;  // of the message that follows outgoing_
  bool flush_ = false;  // whether to write it, whatever its size
  std::optional<Batching> batching_;
  std::unique_ptr<grpc::Alarm> alarm_;
  bool alarm_is_set_ = false;
  std::optional<grpc::ByteBuffer> received_;  // a message that was read ahead
  grpc::Status status_;
  absl::Status gave_up_;
};

// Calls that have ended but that gRPC has not released: if the peer does not read, the half-written message must be
// sent, or the connection must break. They are destroyed after that, when another call ends.
class RawCall::Lingering {
 public:
  static void Add(OwnedByProcess<Reactor> reactor) {
    std::list<OwnedByProcess<Reactor>> done;
    static Lingering& all = *std::make_unique<Lingering>().release();  // lives as long as gRPC's threads
    const std::lock_guard lock(all.mutex_);
    for (auto each = all.reactors_.begin(); each != all.reactors_.end();) {
      const auto next = std::next(each);
      if ((*each)->CancelAndAwaitDone(std::chrono::milliseconds::zero())) {
        done.splice(done.end(), all.reactors_, each);
      }
      each = next;
    }
    if (reactor != nullptr) all.reactors_.push_back(std::move(reactor));
  }

 private:
  std::mutex mutex_;
  std::list<OwnedByProcess<Reactor>> reactors_;
};

std::unique_ptr<RawCall> RawCall::Start(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) {
  auto reactor = MakeOwnedByProcess<Reactor>(channel);
  reactor->Start(method);
  return std::unique_ptr<RawCall>(new RawCall(std::move(reactor)));
}

RawCall::RawCall(OwnedByProcess<Reactor> reactor) : reactor_(std::move(reactor)) {}

RawCall::~RawCall() {
  if (!CheckNotForked().ok()) return;
  const bool is_done = reactor_->CancelAndAwaitDone(kDonePatience);
  Lingering::Add(is_done ? nullptr : std::move(reactor_));
}

absl::Status RawCall::CheckNotForked() const { return reactor_.get_deleter().guard.Check("the call"); }

absl::Status RawCall::Write(grpc::ByteBuffer message, std::chrono::milliseconds timeout) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  return reactor_->Write(std::move(message), timeout);
}

absl::Status RawCall::WriteTogether(absl::FunctionRef<void(std::string&)> append, const Batching& batching,
                                    std::chrono::milliseconds timeout) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  return reactor_->WriteTogether(append, batching, timeout);
}

absl::Status RawCall::WritesDone(std::chrono::milliseconds timeout) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  return reactor_->WritesDone(timeout);
}

absl::StatusOr<std::optional<grpc::ByteBuffer>> RawCall::Read(std::chrono::milliseconds timeout) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  return reactor_->Read(timeout);
}

absl::Status RawCall::Finish(std::chrono::milliseconds timeout) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  return reactor_->Finish(timeout);
}

void RawCall::Cancel() {
  if (CheckNotForked().ok()) reactor_->Cancel();
}

}  // namespace refit

#include "common/net/raw_reader.h"

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/net/heap_anchor.h"
#include "common/net/status.h"
#include "common/net/steady_deadline.h"

namespace refit {
namespace {

// Operations of gRPC; each is pending at most once.
enum Operation : size_t { kStart, kWrite, kRead, kFinish, kOperations };

}  // namespace

class RawReader::State {
 public:
  State(const std::shared_ptr<grpc::Channel>& channel, std::string method)
      : method_(std::move(method)), stub_(channel), call_(stub_.PrepareCall(&context_, method_, &completions_)) {}

  ~State() {
    context_.TryCancel();
    BeginFinish();
    // All pending operations complete, as failed.
    while (pending_ > 0) (void)TakeCompletion(gpr_inf_future(GPR_CLOCK_MONOTONIC));
    completions_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (completions_.Next(&tag, &ok)) continue;
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void Start(const grpc::ByteBuffer& request, std::chrono::milliseconds timeout) {
    call_->StartCall(Begin(kStart));
    if (!Await(kStart, SteadyDeadline(timeout))) {
      (void)GiveUp("the call did not start", timeout);
      return;
    }
    call_->WriteLast(request, grpc::WriteOptions(), Begin(kWrite));
    BeginRead();
  }

  absl::StatusOr<std::optional<grpc::ByteBuffer>> Read(std::chrono::milliseconds timeout) {
    if (!is_reading_) return std::nullopt;
    if (!Await(kRead, SteadyDeadline(timeout))) return GiveUp("the peer sent nothing", timeout);
    is_reading_ = false;
    if (!succeeded_[kRead]) return std::nullopt;
    std::optional<grpc::ByteBuffer> message = std::move(incoming_);
    anchor_.Hold(*message);
    BeginRead();
    return message;
  }

  absl::Status Finish(std::chrono::milliseconds timeout) {
    const gpr_timespec deadline = SteadyDeadline(timeout);
    BeginFinish();
    while (!done_[kFinish]) {
      // The status comes after the last message.
      if (is_reading_ && done_[kRead]) {
        is_reading_ = false;
        if (succeeded_[kRead]) BeginRead();
      }
      if (!TakeCompletion(deadline)) return GiveUp("the peer did not end the call", timeout);
    }
    if (!gave_up_.ok()) return gave_up_;
    return cancelled_ ? FromGrpc(status_) : FromPeer(status_);
  }

  bool HasNews() {
    while (!done_[kRead] && TakeCompletion(SteadyDeadline(std::chrono::milliseconds::zero()))) continue;
    return !is_reading_ || done_[kRead];
  }

  bool AwaitNews(std::chrono::milliseconds timeout) { return !is_reading_ || Await(kRead, SteadyDeadline(timeout)); }

  void Cancel() {
    cancelled_ = true;
    context_.TryCancel();
  }

 private:
  void* Begin(Operation operation) {
    ++pending_;
    done_[operation] = false;
    return &done_[operation];
  }

  void BeginRead() {
    incoming_.Clear();
    is_reading_ = true;
    call_->Read(&incoming_, Begin(kRead));
  }

  void BeginFinish() {
    if (!std::exchange(finishing_, true)) call_->Finish(&status_, Begin(kFinish));
  }

  // False at the deadline.
  bool TakeCompletion(gpr_timespec deadline) {
    void* tag = nullptr;
    bool ok = false;
    if (completions_.AsyncNext(&tag, &ok, deadline) != grpc::CompletionQueue::GOT_EVENT) return false;
    const auto operation = static_cast<size_t>(static_cast<bool*>(tag) - done_.data());
    --pending_;
    done_[operation] = true;
    succeeded_[operation] = ok;
    return true;
  }

  bool Await(Operation operation, gpr_timespec deadline) {
    while (!done_[operation]) {
      if (!TakeCompletion(deadline)) return false;
    }
    return true;
  }

  absl::Status GiveUp(absl::string_view what, std::chrono::milliseconds timeout) {
    if (gave_up_.ok()) {
      gave_up_ = absl::DeadlineExceededError(absl::StrCat(method_, ": ", what, " for ", timeout.count(), " ms"));
    }
    Cancel();
    return gave_up_;
  }

  const std::string method_;
  grpc::CompletionQueue completions_;
  grpc::ClientContext context_;
  grpc::GenericStub stub_;
  const std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  std::array<bool, kOperations> done_ = {};
  std::array<bool, kOperations> succeeded_ = {};
  int pending_ = 0;
  bool is_reading_ = false;  // a requested message was not returned to the caller yet
  bool finishing_ = false;
  HeapAnchor anchor_;
  grpc::ByteBuffer incoming_;
  grpc::Status status_;
  absl::Status gave_up_;
  std::atomic<bool> cancelled_ = false;
};

std::unique_ptr<RawReader> RawReader::Start(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                                            const grpc::ByteBuffer& request, std::chrono::milliseconds timeout) {
  std::unique_ptr<RawReader> reader = Prepare(channel, method);
  reader->Begin(request, timeout);
  return reader;
}

std::unique_ptr<RawReader> RawReader::Prepare(const std::shared_ptr<grpc::Channel>& channel,
                                              const std::string& method) {
  return std::unique_ptr<RawReader>(new RawReader(MakeOwnedByProcess<State>(channel, method)));
}

void RawReader::Begin(const grpc::ByteBuffer& request, std::chrono::milliseconds timeout) {
  state_->Start(request, timeout);
}

RawReader::RawReader(OwnedByProcess<State> state) : state_(std::move(state)) {}
RawReader::~RawReader() = default;

absl::Status RawReader::CheckNotForked() const { return state_.get_deleter().guard.Check("the call"); }

absl::StatusOr<std::optional<grpc::ByteBuffer>> RawReader::Read(std::chrono::milliseconds timeout) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  return state_->Read(timeout);
}

absl::Status RawReader::Finish(std::chrono::milliseconds timeout) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  return state_->Finish(timeout);
}

bool RawReader::HasNews() { return CheckNotForked().ok() && state_->HasNews(); }

bool RawReader::AwaitNews(std::chrono::milliseconds timeout) {
  return !CheckNotForked().ok() || state_->AwaitNews(timeout);
}

void RawReader::Cancel() {
  if (CheckNotForked().ok()) state_->Cancel();
}

}  // namespace refit

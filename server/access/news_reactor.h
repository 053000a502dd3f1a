// A stream on which the service sends news until the caller hangs up or the service shuts down.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/net/status.h"
#include "server/access/refused_call.h"
#include "server/process/end_table.h"
#include "server/process/step.h"

namespace refit {

// Owns itself from Begin until gRPC is done with it. Thread-safe.
template <typename Message>
class NewsReactor : public grpc::ServerWriteReactor<Message>,
                    public std::enable_shared_from_this<NewsReactor<Message>> {
 public:
  // What happens to news that were not sent when the service shuts down.
  enum class AtEnd { kDropNews, kSendNews };

  // `ends` must outlive it.
  explicit NewsReactor(EndTable& ends, AtEnd at_end = AtEnd::kDropNews) : ends_(ends), at_end_(at_end) {}

  void OnWriteDone(bool ok) override {
    {
      const absl::MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok) SetEnding(grpc::Status::CANCELLED);
    }
    Advance();
  }

  void OnCancel() override { End(grpc::Status::CANCELLED); }

  void OnDone() override {
    StopListening();
    uint64_t end = 0;
    {
      const absl::MutexLock lock(&mutex_);
      end = end_;
    }
    ends_.Remove(end);
    self_.reset();
  }

 protected:
  // Call it once, before Advance. `this` is held by a shared pointer then.
  void Begin() {
    self_ = this->shared_from_this();
    const uint64_t end = ends_.Add([weak = this->weak_from_this()] {
      if (const auto self = weak.lock()) self->End(ToGrpc(ShuttingDown()));
    });
    {
      const absl::MutexLock lock(&mutex_);
      end_ = end;
    }
    if (end == 0) End(ToGrpc(ShuttingDown()));
  }

  // Call it when there may be news.
  void Advance() ABSL_LOCKS_EXCLUDED(mutex_) {
    const Step step = NextStep();
    if (step == Step::kWrite) this->StartWrite(&message_);
    if (step == Step::kFinish) this->Finish(ending_);
  }

  // Fills in what is to be sent next. False: nothing now. By one thread at a time; must not call Advance.
  virtual bool TakeNews(Message& message) = 0;
  // Called once at the end: no more Advance, apart from calls under way.
  virtual void StopListening() = 0;

 private:
  void End(const grpc::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      const absl::MutexLock lock(&mutex_);
      SetEnding(status);
    }
    Advance();
  }

  void SetEnding(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!std::exchange(ended_, true)) ending_ = status;
  }

  Step NextStep() ABSL_LOCKS_EXCLUDED(mutex_) {
    const absl::MutexLock lock(&mutex_);
    if (writing_ || finished_) return Step::kNothing;
    const bool hung_up = ended_ && ending_.error_code() == grpc::StatusCode::CANCELLED;
    if (!ended_ || (at_end_ == AtEnd::kSendNews && !hung_up)) writing_ = TakeNews(message_);
    if (writing_) return Step::kWrite;
    finished_ = ended_;
    return ended_ ? Step::kFinish : Step::kNothing;
  }

  EndTable& ends_;
  const AtEnd at_end_;
  std::shared_ptr<NewsReactor> self_;
  Message message_;

  absl::Mutex mutex_;
  uint64_t end_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status ending_;  // set once, before ended_ is seen
};

}  // namespace refit

#include "server/process/work_queue.h"

#include <algorithm>
#include <atomic>
#include <utility>

namespace refit {

WorkQueue::WorkQueue(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

WorkQueue::~WorkQueue() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

void WorkQueue::Submit(std::function<void()> work) {
  absl::MutexLock lock(&mutex_);
  work_.push_back(std::move(work));
}

size_t WorkQueue::waiting() const {
  absl::MutexLock lock(&mutex_);
  return work_.size();
}

void WorkQueue::Run() {
  while (true) {
    std::function<void()> work;
    {
      absl::MutexLock lock(&mutex_);
      auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !work_.empty(); };
      mutex_.Await(absl::Condition(&has_work));
      if (work_.empty()) return;
      work = std::move(work_.front());
      work_.pop_front();
    }
    work();
  }
}

namespace {

// Work that several threads share. It outlives the call, for helpers that start too late.
class Together {
 public:
  Together(size_t count, absl::FunctionRef<void(size_t)> work) : count_(count), work_(work) {}

  // Called by a helper.
  void Help() {
    {
      absl::MutexLock lock(&mutex_);
      if (closed_) return;  // the call is over: what work_ refers to no longer exists
      ++helpers_;
    }
    DoWhatIsLeft();
    absl::MutexLock lock(&mutex_);
    --helpers_;
  }

  void DoAll() {
    DoWhatIsLeft();
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    auto alone = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return helpers_ == 0; };
    mutex_.Await(absl::Condition(&alone));
  }

 private:
  void DoWhatIsLeft() {
    for (size_t i = next_++; i < count_; i = next_++) work_(i);
  }

  const size_t count_;
  const absl::FunctionRef<void(size_t)> work_;
  std::atomic<size_t> next_{0};
  absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  int helpers_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

void ForEachTogether(WorkQueue& queue, size_t count, absl::FunctionRef<void(size_t)> work) {
  const auto together = std::make_shared<Together>(count, work);
  const size_t helpers = std::min(count, static_cast<size_t>(queue.threads()) + 1);
  for (size_t i = 1; i < helpers; ++i) queue.Submit([together] { together->Help(); });
  together->DoAll();
}

void Strand::Post(std::function<void()> work) {
  {
    absl::MutexLock lock(&mutex_);
    work_.push_back(std::move(work));
    if (work_.size() > 1) return;  // the running task will continue with this one
  }
  queue_.Submit([self = shared_from_this()] { self->RunOne(); });
}

void Strand::RunOne() {
  std::function<void()>* work = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    work = &work_.front();  // stays in the queue while it runs, so that Post sees that the strand is busy
  }
  (*work)();
  std::function<void()> done;  // destroyed after the lock is released
  {
    absl::MutexLock lock(&mutex_);
    done = std::move(work_.front());
    work_.pop_front();
    if (work_.empty()) return;
  }
  queue_.Submit([self = shared_from_this()] { self->RunOne(); });
}

}  // namespace refit

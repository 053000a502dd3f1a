#include "server/work_queue.h"

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

void Strand::Post(std::function<void()> work) {
  {
    absl::MutexLock lock(&mutex_);
    work_.push_back(std::move(work));
    if (work_.size() > 1) return;  // the one before it will go on with this one
  }
  queue_.Submit([self = shared_from_this()] { self->RunOne(); });
}

void Strand::RunOne() {
  std::function<void()>* work = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    work = &work_.front();  // stays in place while it runs: Post sees that the strand is busy
  }
  (*work)();
  std::function<void()> done;  // destroyed without the lock
  {
    absl::MutexLock lock(&mutex_);
    done = std::move(work_.front());
    work_.pop_front();
    if (work_.empty()) return;
  }
  queue_.Submit([self = shared_from_this()] { self->RunOne(); });
}

}  // namespace refit

// A pool of threads that convert, and strands that run one stream's work in order.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

namespace refit {

// A fixed number of threads that run submitted work in order. The destructor runs the queued work, then joins.
// Thread-safe.
class WorkQueue {
 public:
  explicit WorkQueue(int threads);
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  void Submit(std::function<void()> work);
  // How much work has not begun.
  size_t waiting() const;
  int threads() const { return static_cast<int>(threads_.size()); }

 private:
  void Run();

  mutable absl::Mutex mutex_;
  std::deque<std::function<void()>> work_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

// Calls work(0), ..., work(count - 1), each once, in this thread and in idle threads of the queue. Returns when all are
// done. It does not wait for threads that have not begun, so a thread of the queue may call it too.
void ForEachTogether(WorkQueue& queue, size_t count, absl::FunctionRef<void(size_t)> work);

// Runs posted functions one at a time, in order, on the threads of a queue. Thread-safe. The queue must outlive it.
class Strand : public std::enable_shared_from_this<Strand> {
 public:
  explicit Strand(WorkQueue& queue) : queue_(queue) {}

  void Post(std::function<void()> work);

 private:
  void RunOne();

  WorkQueue& queue_;
  absl::Mutex mutex_;
  std::deque<std::function<void()>> work_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit

// Wakes a thread that waits for news.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace refit {

// Thread-safe. Who tells may hold it longer than who waits: share it.
class News {
 public:
  // There is news; what is told before it is awaited counts once.
  void Tell() ABSL_LOCKS_EXCLUDED(mutex_) {
    const absl::MutexLock lock(&mutex_);
    told_ = true;
  }
  void End() ABSL_LOCKS_EXCLUDED(mutex_) {
    const absl::MutexLock lock(&mutex_);
    ended_ = true;
  }
  // Returns true with the next news, or when `timeout` is over; false once it has ended.
  bool Await(absl::Duration timeout = absl::InfiniteDuration()) ABSL_LOCKS_EXCLUDED(mutex_) {
    const absl::MutexLock lock(&mutex_);
    const auto is_over = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return told_ || ended_; };
    mutex_.AwaitWithTimeout(absl::Condition(&is_over), timeout);
    told_ = false;
    return !ended_;
  }

 private:
  absl::Mutex mutex_;
  bool told_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace refit

// Whoever is told of changes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace refit {

// Thread-safe.
class Observers {
 public:
  // Returns a number for Remove, never 0.
  uint64_t Add(std::function<void()> on_change) ABSL_LOCKS_EXCLUDED(mutex_) {
    const absl::MutexLock lock(&mutex_);
    observers_.emplace(next_, std::move(on_change));
    return next_++;
  }
  // When it returns, `on_change` may still be running but is not called again.
  void Remove(uint64_t number) ABSL_LOCKS_EXCLUDED(mutex_) {
    const absl::MutexLock lock(&mutex_);
    observers_.erase(number);
  }
  // Calls all, with no lock held.
  void Tell() const ABSL_LOCKS_EXCLUDED(mutex_) {
    std::vector<std::function<void()>> observers;
    {
      const absl::MutexLock lock(&mutex_);
      observers.reserve(observers_.size());
      for (const auto& [number, observer] : observers_) observers.push_back(observer);
    }
    for (const std::function<void()>& on_change : observers) on_change();
  }

 private:
  mutable absl::Mutex mutex_;
  uint64_t next_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, std::function<void()>> observers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit

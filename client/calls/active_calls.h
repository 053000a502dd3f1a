// The calls under way on a connection, so that they can be ended together.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <utility>

#include "client/calls/stop_flag.h"

namespace refit {

// Thread-safe.
class ActiveCalls {
 public:
  // One call, from construction to destruction. `cancel` may be called meanwhile, from any thread, and at once if the
  // calls are cancelled already; it must not wait.
  class Entry {
   public:
    Entry(std::shared_ptr<ActiveCalls> calls, std::function<void()> cancel) : calls_(std::move(calls)) {
      const std::lock_guard lock(calls_->mutex_);
      place_ = calls_->cancels_.insert(calls_->cancels_.end(), std::move(cancel));
      if (calls_->cancelled_.stopped()) (*place_)();
    }
    ~Entry() {
      const std::lock_guard lock(calls_->mutex_);
      calls_->cancels_.erase(place_);
    }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    const std::shared_ptr<ActiveCalls> calls_;
    std::list<std::function<void()>>::iterator place_;
  };

  // Cancels all, and every one that is begun later.
  void Cancel() {
    cancelled_.Stop();
    const std::lock_guard lock(mutex_);
    for (const std::function<void()>& cancel : cancels_) cancel();
  }

  StopFlag& cancelled() { return cancelled_; }

 private:
  StopFlag cancelled_;
  std::mutex mutex_;
  std::list<std::function<void()>> cancels_;
};

}  // namespace refit

// The list of calls under way on a connection. It can cancel them all at once.
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
  // One call, from construction to destruction. Any thread may call `cancel` during that time. If the calls are already
  // cancelled, the constructor calls it. `cancel` must not block.
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

  // Cancels all calls, and every call that begins later.
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

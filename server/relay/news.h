// Wakes a thread that waits for news.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>

namespace refit {

// Thread-safe. Who tells may hold it longer than who waits: share it.
class News {
 public:
  // There is news; what is told before it is awaited counts once.
  void Tell() {
    const std::lock_guard lock(mutex_);
    told_ = true;
    changed_.notify_all();
  }
  void End() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  // Returns true with the next news, or when `timeout` is over, if there is one; false once it has ended.
  bool Await(std::optional<std::chrono::milliseconds> timeout = std::nullopt) {
    std::unique_lock lock(mutex_);
    const auto is_over = [this] { return told_ || ended_; };
    if (timeout.has_value()) {
      changed_.wait_until(lock, std::chrono::steady_clock::now() + *timeout, is_over);
    } else {
      changed_.wait(lock, is_over);
    }
    told_ = false;
    return !ended_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool told_ = false;
  bool ended_ = false;
};

}  // namespace refit

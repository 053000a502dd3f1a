// A list of callbacks that wait for a version to progress.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

namespace refit {

// The condition of a waiter: ready chunks of a tensor, or that all ranks have joined, or neither. The end of the open
// state ends every wait.
struct Awaited {
  enum class What { kChunks, kRanks, kEnd } what = What::kEnd;
  size_t tensor = 0;
  uint64_t first_chunk = 0;
  uint64_t end_chunk = 0;
};

// Not thread-safe.
class Waiters {
 public:
  using Wake = std::function<void()>;

  // Returns the waiter's number, which is never 0.
  uint64_t Add(const Awaited& awaited, Wake wake) {
    waiters_.emplace(next_, Waiter{awaited, std::move(wake)});
    return next_++;
  }
  void Remove(uint64_t number) { waiters_.erase(number); }

  // Removes the waiters whose wait is over, for the caller to call once it holds no lock.
  template <typename IsOver>
  std::vector<Wake> TakeIf(const IsOver& is_over) {
    std::vector<Wake> wakes;
    for (auto it = waiters_.begin(); it != waiters_.end();) {
      if (is_over(it->second.awaited)) {
        wakes.push_back(std::move(it->second.wake));
        it = waiters_.erase(it);
      } else {
        ++it;
      }
    }
    return wakes;
  }

 private:
  struct Waiter {
    Awaited awaited;
    Wake wake;
  };

  uint64_t next_ = 1;
  std::map<uint64_t, Waiter> waiters_;
};

}  // namespace refit

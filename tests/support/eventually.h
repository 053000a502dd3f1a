// Waits for a condition that another thread or process makes true without a signal.
#pragma once

#include <chrono>
#include <functional>
#include <thread>

namespace refit {

// Checks `condition` repeatedly until it holds. False if it does not hold in time.
inline bool Eventually(const std::function<bool()>& condition,
                       std::chrono::seconds patience = std::chrono::seconds(60)) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace refit

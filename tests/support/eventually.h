// For what comes about in another process or thread, without a sign.
#pragma once

#include <chrono>
#include <functional>
#include <thread>

namespace refit {

// Looks again and again until `condition` holds; false if it does not in time.
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

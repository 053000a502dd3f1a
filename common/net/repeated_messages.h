// Thins out messages that come again and again.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace refit {

// One client with a wrong certificate makes gRPC say so several times a second, for as long as it tries. This lets each
// message pass once in a while, with the number of those that it left out. Thread-safe.
class RepeatedMessages {
 public:
  using Clock = std::chrono::steady_clock;

  // How long a message is silent after it has passed.
  static constexpr std::chrono::seconds kSilence{60};
  // So many messages are remembered: of more, the one that passed longest ago is forgotten.
  static constexpr size_t kRemembered = 64;

  // What is to be written; nothing if the same message passed less than kSilence ago. Two are the same if they are
  // equal up to a "{": what follows there are gRPC's details, which have the time in them.
  std::optional<std::string> Pass(absl::string_view message, Clock::time_point now = Clock::now());

 private:
  struct Passed {
    std::string start;
    Clock::time_point at;
    uint64_t left_out = 0;
  };

  absl::Mutex mutex_;
  std::vector<Passed> passed_ ABSL_GUARDED_BY(mutex_);  // in the order of their times
};

}  // namespace refit

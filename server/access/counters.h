// Counts events since the service started.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace refit {

// Counts failures by status code. Thread-safe.
class FailureCount {
 public:
  // Does nothing if the status is OK.
  void Add(const absl::Status& status);
  // The count of each code that occurred, by name, such as "DATA_LOSS".
  std::map<std::string, uint64_t> Get() const;

 private:
  static constexpr size_t kCodes = 17;
  std::array<std::atomic<uint64_t>, kCodes> counts_{};
};

// Counts how often each limit was reached, by the flag that sets it. Thread-safe.
class LimitCount {
 public:
  // Does nothing if the status does not come from LimitReached.
  void Add(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  std::map<std::string, uint64_t> Get() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  std::map<std::string, uint64_t> counts_ ABSL_GUARDED_BY(mutex_);
};

struct Counters {
  std::atomic<uint64_t> received_bytes{0};  // payload from trainers, over connections or through memory
  FailureCount refused_calls;               // refused for lack of a role
  FailureCount failed_pushes;
  FailureCount failed_pulls;
  LimitCount limits;
};

}  // namespace refit

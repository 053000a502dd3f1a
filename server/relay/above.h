// The service above a relay: the connection to it, and what came from there.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "client/worker/subscriber_connection.h"

namespace refit {

// Thread-safe.
class Received {
 public:
  // Payload that came from above, and the tensor bytes that it stands for.
  std::atomic<uint64_t> payload_bytes{0};
  std::atomic<uint64_t> tensor_bytes{0};

  // Why the next version of a model did not come; OK: it came.
  void SetMissing(const std::string& model, const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    missing_.erase(model);
    if (!why.ok()) missing_.emplace(model, why.message());
  }
  // For people; empty: nothing is missing.
  std::string missing() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return absl::StrJoin(missing_, "; ", absl::PairFormatter(": "));
  }

 private:
  mutable absl::Mutex mutex_;
  std::map<std::string, std::string> missing_ ABSL_GUARDED_BY(mutex_);  // by model
};

// Members are thread-safe or immutable. It outlives all that uses the service above.
struct Above {
  const std::shared_ptr<SubscriberConnection> connection;
  // How this relay names itself there.
  const std::string name;
  const uint64_t life;
  // PullOptions::streams.
  const uint32_t streams;
  Received& received;
};

}  // namespace refit

// Shared memory that workers have mapped: who holds which, until they give it back.
#pragma once

#include <cstdint>
#include <functional>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/random/random.h"
#include "absl/synchronization/mutex.h"

namespace refit {

// Thread-safe. Callbacks run on the thread that ends the lease, with no lock held.
class LeaseTable {
 public:
  // `on_end` is called once, unless the lease is removed before. The number is never 0, and cannot be guessed from
  // others.
  uint64_t Add(std::function<void()> on_end) ABSL_LOCKS_EXCLUDED(mutex_);
  void Remove(uint64_t lease) ABSL_LOCKS_EXCLUDED(mutex_);

  // False if there is no such lease.
  bool End(uint64_t lease) ABSL_LOCKS_EXCLUDED(mutex_);
  // When the service goes: what is mapped stays with the workers.
  void EndAll() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Mutex mutex_;
  absl::BitGen random_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::function<void()>> leases_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit

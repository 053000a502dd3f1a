// Calls that stay open until they are told to end: leases of shared memory, and watches.
#pragma once

#include <cstdint>
#include <functional>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/random/random.h"
#include "absl/synchronization/mutex.h"

namespace refit {

// Thread-safe. Callbacks run in the thread that ends the call, with no lock held.
class EndTable {
 public:
  // Returns a number for the call, which cannot be guessed from other numbers. `on_end` is called once, unless the call
  // is removed before. Returns 0 if EndAll was called already: this call must end too.
  uint64_t Add(std::function<void()> on_end) ABSL_LOCKS_EXCLUDED(mutex_);
  void Remove(uint64_t number) ABSL_LOCKS_EXCLUDED(mutex_);

  // False if there is no such call.
  bool End(uint64_t number) ABSL_LOCKS_EXCLUDED(mutex_);
  // Call it when the service shuts down.
  void EndAll() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Mutex mutex_;
  absl::BitGen random_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::function<void()>> calls_ ABSL_GUARDED_BY(mutex_);
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace refit

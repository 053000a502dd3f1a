// Calls that go on until they are told to end: leases of shared memory, and watches.
#pragma once

#include <cstdint>
#include <functional>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/random/random.h"
#include "absl/synchronization/mutex.h"

namespace refit {

// Thread-safe. Callbacks run on the thread that ends the call, with no lock held.
class EndTable {
 public:
  // `on_end` is called once, unless the call is removed before. The number cannot be guessed from others. 0: all were
  // ended already, and this one is to end as well.
  uint64_t Add(std::function<void()> on_end) ABSL_LOCKS_EXCLUDED(mutex_);
  void Remove(uint64_t number) ABSL_LOCKS_EXCLUDED(mutex_);

  // False if there is no such call.
  bool End(uint64_t number) ABSL_LOCKS_EXCLUDED(mutex_);
  // When the service goes.
  void EndAll() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Mutex mutex_;
  absl::BitGen random_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::function<void()>> calls_ ABSL_GUARDED_BY(mutex_);
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace refit

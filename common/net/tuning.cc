#include "refit/tuning.h"

#include <malloc.h>

#include <limits>

#include "absl/synchronization/mutex.h"

namespace refit {

void IgnoreLockCycles() {
  // Debian's abseil checks for them at every lock, including gRPC's. That costs more than the locks.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

void TuneForBulkData() {
  IgnoreLockCycles();
#ifdef __GLIBC__
  // Streams keep what they receive into (heap_anchor.h). This keeps it from one stream to the next.
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TOP_PAD, 64 << 20);
  mallopt(M_ARENA_MAX, 2);
#endif
}

}  // namespace refit

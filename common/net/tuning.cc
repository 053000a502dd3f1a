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
  // gRPC receives into new blocks of 64 KiB. If these were returned to the kernel after each message, every page would
  // be faulted in again, which costs several times as much as the copy.
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TOP_PAD, 64 << 20);
  mallopt(M_ARENA_MAX, 2);
#endif
}

}  // namespace refit

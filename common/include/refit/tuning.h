// What a program may do for bulk data that a library must not do by itself.
#pragma once

namespace refit {

// Keeps glibc from giving gRPC's receive buffers back to the kernel after each message (does nothing with another
// allocator), and abseil from looking for lock cycles. Call first in main; libraries do not call it.
void TuneForBulkData();

// The latter only, which no other part of the process notices.
void IgnoreLockCycles();

}  // namespace refit

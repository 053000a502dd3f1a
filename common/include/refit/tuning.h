// Process-wide settings for bulk data. A program may make them; a library must not do so by itself.
#pragma once

namespace refit {

// Makes glibc keep what is freed, instead of returning it to the kernel (no effect with another allocator), and stops
// abseil from checking for lock cycles. Transfers are nearly as fast without it: while one lasts, it keeps gRPC's
// receive buffers by itself. Call it first in main, of programs that do little else than transfers. Libraries do not
// call it.
void TuneForBulkData();

// Only stops the check for lock cycles. No other part of the process notices that.
void IgnoreLockCycles();

}  // namespace refit

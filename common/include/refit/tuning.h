// Process-wide settings for bulk data. A program may make them; a library must not do so by itself.
#pragma once

namespace refit {

// Makes glibc keep gRPC's receive buffers, instead of returning them to the kernel after each message (no effect with
// another allocator), and stops abseil from checking for lock cycles. Call it first in main. Libraries do not call it.
void TuneForBulkData();

// Only stops the check for lock cycles. No other part of the process notices that.
void IgnoreLockCycles();

}  // namespace refit

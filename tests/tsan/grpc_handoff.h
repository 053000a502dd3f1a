// Shows ThreadSanitizer how gRPC hands work from thread to thread.
#pragma once

namespace refit::tsan {

// Called by a thread that has just taken a lock within gRPC: whatever was done before any gRPC operation was started
// now happens before what this thread does, its callbacks above all.
void AcquireHandoffs();

}  // namespace refit::tsan

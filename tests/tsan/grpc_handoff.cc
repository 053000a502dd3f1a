#include "tests/tsan/grpc_handoff.h"

#include <dlfcn.h>
#include <grpc/grpc.h>
#include <sanitizer/tsan_interface.h>

#include <cstdlib>

namespace {

// One for all operations: coarse, so that a race between two threads that start gRPC operations in between may go
// unseen. Packaged gRPC shows nothing finer: from operation to callback it goes by atomics.
char handoff;

}  // namespace

namespace refit::tsan {

void AcquireHandoffs() { __tsan_acquire(&handoff); }

}  // namespace refit::tsan

// Takes the place of gRPC's, which starts every operation of every call.
extern "C" grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* ops, size_t nops, void* tag,
                                                 void* reserved) {
  static const auto original = reinterpret_cast<decltype(&grpc_call_start_batch)>(dlsym(RTLD_NEXT, __func__));
  if (original == nullptr) std::abort();
  __tsan_release(&handoff);
  return original(call, ops, nops, tag, reserved);
}

// Takes the place of gRPC's, which callbacks call last, after which a server that shuts down may count them as done.
extern "C" void grpc_call_unref(grpc_call* call) {
  static const auto original = reinterpret_cast<decltype(&grpc_call_unref)>(dlsym(RTLD_NEXT, __func__));
  if (original == nullptr) std::abort();
  __tsan_release(&handoff);
  original(call);
}

// Takes the place of gRPC's, which finds the ends of operations for callbacks and for whoever has a queue of his own:
// what was done before they began is seen here, also by a thread that took no lock on the way.
extern "C" grpc_event grpc_completion_queue_next(grpc_completion_queue* queue, gpr_timespec deadline, void* reserved) {
  static const auto original = reinterpret_cast<decltype(&grpc_completion_queue_next)>(dlsym(RTLD_NEXT, __func__));
  if (original == nullptr) std::abort();
  const grpc_event event = original(queue, deadline, reserved);
  __tsan_acquire(&handoff);
  return event;
}

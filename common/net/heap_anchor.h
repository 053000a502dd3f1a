// Keeps the memory that gRPC receives into warm, while a stream lasts.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstdint>
#include <map>

namespace refit {

// gRPC receives into blocks of malloc. glibc gives the end of a heap back to the kernel as soon as it is free, which it
// is after each message; the next one then faults in every page anew. So a stream keeps the highest block of each heap:
// what is free beneath it stays. That is a few blocks of 64 KiB, and nothing of the process's allocator changes. Use it
// from one thread at a time.
class HeapAnchor {
 public:
  // Call it with each received message, before the message is released.
  void Hold(const grpc::ByteBuffer& message);

 private:
  std::map<uintptr_t, grpc::Slice> highest_;  // by heap
};

}  // namespace refit

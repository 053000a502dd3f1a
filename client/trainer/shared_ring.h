// A ring of shared memory for payloads to a service on the same host.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "common/net/descriptor_client.h"
#include "common/safetensors/posix_file.h"
#include "refit/buffer.h"
#include "refit/v1/types.pb.h"

namespace refit {

// Payloads are placed in the order in which they are sent, each contiguous, and are removed in that order as the
// service acknowledges them. Not thread-safe.
class SharedRing {
 public:
  // UNAVAILABLE or RESOURCE_EXHAUSTED, with the reason, if there is no memory that can be shared.
  static absl::StatusOr<std::unique_ptr<SharedRing>> Create(uint64_t bytes);

  uint64_t bytes() const { return memory_->size(); }
  // Tells the service how to open it.
  const v1::SharedSegment& announcement() const { return announcement_; }
  // Has the service use the memory's descriptor, as long as the result is open: also a service that cannot open it by
  // the announcement alone. Invalid if that service takes none.
  FileDescriptor OfferTo(const DescriptorClient& service);

  // The place of a free range of `bytes` bytes, at least 1; nullopt until more is released. `sent_bytes` is the number
  // of bytes sent after these.
  std::optional<uint64_t> Reserve(uint64_t bytes, uint64_t sent_bytes);
  std::byte* at(uint64_t place) { return memory_->data() + place; }

  // Call it when the service has handled this many of the sent bytes.
  void Release(uint64_t handled_bytes);

 private:
  struct Piece {
    uint64_t begin;
    uint64_t sent_bytes;  // including its last byte
  };
  explicit SharedRing(std::shared_ptr<Buffer> memory);
  std::optional<uint64_t> FindRoom(uint64_t bytes) const;

  const std::shared_ptr<Buffer> memory_;
  v1::SharedSegment announcement_;
  std::deque<Piece> pieces_;  // oldest first
  uint64_t end_ = 0;          // end of the newest
};

}  // namespace refit

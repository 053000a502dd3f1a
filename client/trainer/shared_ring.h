// Where a trainer puts payloads for a service on the same host.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "refit/buffer.h"
#include "refit/v1/types.pb.h"

namespace refit {

// A ring of shared memory. Payloads lie in it in the order in which they are sent, each in one piece, and leave it in
// that order as the service says how much it has handled. Not thread-safe.
class SharedRing {
 public:
  // UNAVAILABLE or RESOURCE_EXHAUSTED, saying why, if there is no memory that can be shared.
  static absl::StatusOr<std::unique_ptr<SharedRing>> Create(uint64_t bytes);

  uint64_t bytes() const { return memory_->size(); }
  // How the service may open it.
  const v1::SharedSegment& announcement() const { return announcement_; }

  // Where `bytes` bytes, at least 1, have room; nullopt until more has left. `sent_bytes` is what will have been sent
  // with them.
  std::optional<uint64_t> Reserve(uint64_t bytes, uint64_t sent_bytes);
  std::byte* at(uint64_t place) { return memory_->data() + place; }

  // The service has handled so much of what was sent.
  void Release(uint64_t handled_bytes);

 private:
  struct Piece {
    uint64_t begin;
    uint64_t sent_bytes;  // with its last byte
  };
  explicit SharedRing(std::shared_ptr<Buffer> memory);
  std::optional<uint64_t> FindRoom(uint64_t bytes) const;

  const std::shared_ptr<Buffer> memory_;
  const v1::SharedSegment announcement_;
  std::deque<Piece> pieces_;  // oldest first
  uint64_t end_ = 0;          // of the newest
};

}  // namespace refit

// The ways that a chunk can take to the service: in a message of its own, in a batch, through shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/trainer/push_stream.h"
#include "client/trainer/shared_ring.h"
#include "common/wire/chunk_codec.h"

namespace refit {

// Keeps what is under way within the service's window. Not thread-safe.
class ChunkSender {
 public:
  // `ring` null: all goes over the stream. `window_bytes` 0: any number of bytes may be under way. Both objects must
  // live as long.
  ChunkSender(PushStream& stream, SharedRing* ring, uint64_t window_bytes)
      : stream_(stream), ring_(ring), window_bytes_(window_bytes) {}

  // A payload whose way is decided.
  struct Payload {
    absl::Span<const std::byte> bytes;
    uint64_t digest = 0;
    std::optional<uint64_t> place;  // in the ring, which has a copy
  };
  // Waits until so much more may be under way, and digests it.
  absl::StatusOr<Payload> Prepare(absl::Span<const std::byte> bytes);

  // A chunk with the payload that was prepared last. What goes in a message of its own is borrowed if it has an
  // `owner`, which is kept until gRPC has let go of the bytes. `tensor` is its name.
  absl::Status Send(const ChunkHeader& header, const Payload& payload, std::shared_ptr<const void> owner,
                    absl::string_view tensor);
  // In a batch: of less than kShortChunkBytes.
  absl::Status SendShort(const ChunkHeader& header, absl::Span<const std::byte> payload, absl::string_view tensor);

 private:
  bool IsShared(uint64_t payload_bytes) const;
  absl::Status WaitForWindow(uint64_t payload_bytes);
  absl::Status WaitForReceived();

  PushStream& stream_;
  SharedRing* const ring_;
  const uint64_t window_bytes_;
  uint64_t sent_bytes_ = 0;      // of payload
  uint64_t received_bytes_ = 0;  // of those, what the service has acknowledged
};

}  // namespace refit

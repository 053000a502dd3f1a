// Sends chunks to the service: each in a message of its own, in batches, or through shared memory.
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

// Never sends more than the service's window without acknowledgement. Not thread-safe.
class ChunkSender {
 public:
  // `ring` null: everything is sent over the stream. `window_bytes` 0: no limit. Both objects must outlive this one.
  ChunkSender(PushStream& stream, SharedRing* ring, uint64_t window_bytes)
      : stream_(stream), ring_(ring), window_bytes_(window_bytes) {}

  // A payload, after the decision how it is sent.
  struct Payload {
    absl::Span<const std::byte> bytes;
    uint64_t digest = 0;
    std::optional<uint64_t> place;  // in the ring, which has a copy
  };
  // Waits until the window has room for `bytes`, and digests them.
  absl::StatusOr<Payload> Prepare(absl::Span<const std::byte> bytes);

  // Sends a chunk with the payload that was prepared last. If it is sent in a message of its own and has an `owner`,
  // the payload is borrowed, and `owner` is kept until gRPC has released the bytes. `tensor` is the tensor's name.
  absl::Status Send(const ChunkHeader& header, const Payload& payload, std::shared_ptr<const void> owner,
                    absl::string_view tensor);
  // Sends a chunk of less than kShortChunkBytes in a batch.
  absl::Status SendShort(const ChunkHeader& header, absl::Span<const std::byte> payload, absl::string_view tensor);

 private:
  bool IsShared(uint64_t payload_bytes) const;
  absl::Status WaitForWindow(uint64_t payload_bytes);
  absl::Status WaitForReceived();

  PushStream& stream_;
  SharedRing* const ring_;
  const uint64_t window_bytes_;
  uint64_t sent_bytes_ = 0;      // payload bytes
  uint64_t received_bytes_ = 0;  // how many of them the service has acknowledged
};

}  // namespace refit

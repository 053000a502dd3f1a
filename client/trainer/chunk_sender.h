// Casts and sends chunks to the service: each in a message of its own, in batches, or through shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/trainer/cast_shards.h"
#include "client/trainer/push_stream.h"
#include "client/trainer/shared_ring.h"
#include "common/tensor/buffer_pool.h"
#include "common/wire/chunk_codec.h"

namespace refit {

// Never sends more than the service's window without acknowledgement. Not thread-safe.
class ChunkSender {
 public:
  // `ring` null: everything is sent over the stream. `window_bytes` 0: no limit. No payload is longer than
  // `chunk_limit`. Both objects must outlive this one.
  ChunkSender(PushStream& stream, SharedRing* ring, uint64_t window_bytes, uint64_t chunk_limit)
      : stream_(stream), ring_(ring), window_bytes_(window_bytes), chunk_limit_(chunk_limit) {}

  // A payload as it is sent, after the decision how.
  struct Payload {
    absl::Span<const std::byte> bytes;
    uint64_t digest = 0;
    std::optional<uint64_t> place;      // of the bytes in the ring
    std::shared_ptr<const void> owner;  // of the bytes elsewhere; null: they are copied when they are sent
  };
  // Waits until the window has room for a shard's elements, casts them if needed, and digests them. `owner`, if there
  // is one, owns `native`.
  absl::StatusOr<Payload> Prepare(absl::Span<const std::byte> native, const ShardCast& cast,
                                  std::shared_ptr<const void> owner);

  // Sends a chunk with the payload that was prepared last. If it is sent in a message of its own and has an owner, the
  // payload is borrowed, and the owner is kept until gRPC has released the bytes. `tensor` is the tensor's name.
  absl::Status Send(const ChunkHeader& header, Payload payload, absl::string_view tensor);
  // Sends a chunk of less than kShortChunkBytes in a batch.
  absl::Status SendShort(const ChunkHeader& header, absl::Span<const std::byte> payload, absl::string_view tensor);

 private:
  // What gRPC and the kernel hold at a time.
  static constexpr uint64_t kIdleCastBytes = 16 << 20;

  bool IsShared(uint64_t payload_bytes) const;
  absl::Status WaitForWindow(uint64_t payload_bytes);
  absl::Status WaitForReceived();
  absl::StatusOr<Payload> Share(absl::Span<const std::byte> native, const ShardCast& cast);
  absl::StatusOr<Payload> Cast(absl::Span<const std::byte> native, const ShardCast& cast);

  PushStream& stream_;
  SharedRing* const ring_;
  const uint64_t window_bytes_;
  const uint64_t chunk_limit_;
  BufferPool casts_{kIdleCastBytes};  // payloads that were cast and that gRPC has not released
  uint64_t sent_bytes_ = 0;           // payload bytes
  uint64_t received_bytes_ = 0;       // how many of them the service has acknowledged
};

}  // namespace refit

// A hand-written codec for the chunk message. It is ordinary protobuf, but the payload is not copied.
//
// A chunk is field 1 of PushRequest and of PullResponse. The small header comes first and the payload last. So a sender
// can give gRPC its own header and a borrowed payload. A receiver parses the header, and then moves the payload
// directly to its destination.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace refit {

// The fields of refit.v1.Chunk without the payload.
struct ChunkHeader {
  uint64_t tensor = 0;
  uint64_t offset = 0;
  int encoding = 0;            // refit.v1.ChunkEncoding
  uint64_t decoded_bytes = 0;  // 0: the payload's size
  uint64_t digest = 0;
  std::optional<uint64_t> tensor_digest;

  friend bool operator==(const ChunkHeader& a, const ChunkHeader& b) {
    return a.tensor == b.tensor && a.offset == b.offset && a.encoding == b.encoding &&
           a.decoded_bytes == b.decoded_bytes && a.digest == b.digest && a.tensor_digest == b.tensor_digest;
  }
};

// Shorter chunks are sent together (refit.v1.ChunkBatch), in messages of about kBatchBytes.
inline constexpr uint64_t kShortChunkBytes = 32 << 10;
inline constexpr uint64_t kBatchBytes = 512 << 10;

// Upper bound of what EncodeChunkPrefix returns, in bytes.
inline constexpr size_t kMaxChunkPrefixBytes = 80;
// Size limit of a batch's entries, if no entry is added once it has kBatchBytes.
inline constexpr size_t kMaxBatchBytes = kBatchBytes + kMaxChunkPrefixBytes + kShortChunkBytes;

// The bytes of a PushRequest or PullResponse with this chunk, up to the payload. The payload, `payload_bytes` long,
// must follow.
std::string EncodeChunkPrefix(const ChunkHeader& header, uint64_t payload_bytes);

// Appends an entry to a batch (refit.v1.ChunkBatch, field 7 of PushRequest and of PullResponse). A batch is a prefix
// with the size of its entries, and the entries. Batches written one after the other form one batch.
void AppendBatchEntry(const ChunkHeader& header, absl::Span<const std::byte> payload, std::string& entries);
std::string EncodeBatchPrefix(uint64_t entries_bytes);

// A chunk whose payload is a view of its message.
struct ChunkView {
  ChunkHeader header;
  absl::Span<const std::byte> payload;
};

// Whether a message with this first byte can be a batch.
bool IsBatch(std::byte first);

// The chunks of a message; nullopt if the message does not have the form that is written here, as for
// DecodeChunkPrefix.
std::optional<std::vector<ChunkView>> DecodeBatch(absl::Span<const std::byte> message);

struct DecodedChunk {
  ChunkHeader header;
  uint64_t payload_offset = 0;  // offset of the payload in the message
  uint64_t payload_bytes = 0;   // it ends with the message
};

// Reads the prefix of a message of `message_bytes` bytes. `head` is its first bytes: all of them, or at least
// kMaxChunkPrefixBytes. Returns nullopt if the message does not have the form that EncodeChunkPrefix writes (another
// field than a chunk, fields in another order, unknown fields, payload not last). It may still be valid protobuf, and
// the caller then parses it as such. INVALID_ARGUMENT if it is a chunk whose lengths contradict the message.
absl::StatusOr<std::optional<DecodedChunk>> DecodeChunkPrefix(absl::Span<const std::byte> head, uint64_t message_bytes);

}  // namespace refit

// The hand-written codec of the chunk message: ordinary protobuf on the wire, with the payload never copied by us.
//
// A chunk travels as field 1 of PushRequest and of PullResponse. Encoded by hand, the small header comes first and the
// payload last, so that a sender can hand gRPC a header of its own and a borrowed payload; a receiver parses the header
// and then moves the payload bytes straight to where they belong.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace refit {

// The fields of refit.v1.Chunk but the payload.
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

// Chunks shorter than this travel together (refit.v1.ChunkBatch), in messages of about so many bytes.
inline constexpr uint64_t kShortChunkBytes = 32 << 10;
inline constexpr uint64_t kBatchBytes = 512 << 10;

// Upper bound of what EncodeChunkPrefix returns, in bytes.
inline constexpr size_t kMaxChunkPrefixBytes = 80;
// Of a batch's entries that gets no more of them once it has kBatchBytes.
inline constexpr size_t kMaxBatchBytes = kBatchBytes + kMaxChunkPrefixBytes + kShortChunkBytes;

// Everything of a PushRequest or PullResponse with this chunk but the payload itself, which must follow,
// `payload_bytes` long.
std::string EncodeChunkPrefix(const ChunkHeader& header, uint64_t payload_bytes);

// A batch of chunks (refit.v1.ChunkBatch, field 7 of PushRequest and of PullResponse) is its entries behind a prefix
// that tells their size. Batches one after the other make one.
void AppendBatchEntry(const ChunkHeader& header, absl::Span<const std::byte> payload, std::string& entries);
std::string EncodeBatchPrefix(uint64_t entries_bytes);

// A chunk whose payload lies in its message.
struct ChunkView {
  ChunkHeader header;
  absl::Span<const std::byte> payload;
};

// Whether a message that begins with this byte can be a batch.
bool IsBatch(std::byte first);

// The chunks of a message; nullopt when it is not in the form that is written here, as DecodeChunkPrefix has it.
std::optional<std::vector<ChunkView>> DecodeBatch(absl::Span<const std::byte> message);

struct DecodedChunk {
  ChunkHeader header;
  uint64_t payload_offset = 0;  // where in the message the payload begins
  uint64_t payload_bytes = 0;   // it ends with the message
};

// Reads the prefix of a message of `message_bytes` bytes from `head`, its first bytes (all of them, or at least
// kMaxChunkPrefixBytes). Returns nullopt when the message is not in the form that EncodeChunkPrefix writes (another
// field than a chunk, fields in another order or unknown ones, payload not last): it may still be valid protobuf, which
// the caller then parses as such. INVALID_ARGUMENT when it is a chunk whose lengths contradict the message.
absl::StatusOr<std::optional<DecodedChunk>> DecodeChunkPrefix(absl::Span<const std::byte> head, uint64_t message_bytes);

}  // namespace refit

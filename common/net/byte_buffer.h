// Between protobuf messages, chunks and grpc::ByteBuffer.
#pragma once

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/wire/chunk_codec.h"

namespace refit {

// Serialises a small message (not a chunk with its payload).
grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message);

// INVALID_ARGUMENT if `buffer` is no valid encoding.
absl::Status Parse(const grpc::ByteBuffer& buffer, google::protobuf::MessageLite& message);

// A message whose payload is borrowed: `owner` is kept until gRPC lets go of the bytes, which may be long after the
// write is reported done.
grpc::ByteBuffer MakeChunkMessage(const ChunkHeader& header, absl::Span<const std::byte> payload,
                                  std::shared_ptr<const void> owner);

// The same with a payload that is copied.
grpc::ByteBuffer CopyChunkMessage(const ChunkHeader& header, absl::Span<const std::byte> payload);

// A batch of these entries; see AppendBatchEntry.
grpc::ByteBuffer MakeBatchMessage(std::string entries);

// A received message, taken apart into its slices.
class ReceivedMessage {
 public:
  explicit ReceivedMessage(grpc::ByteBuffer buffer);

  uint64_t size() const { return size_; }
  const grpc::ByteBuffer& buffer() const { return buffer_; }

  // See DecodeChunkPrefix.
  absl::StatusOr<std::optional<DecodedChunk>> DecodeChunk() const;

  // See DecodeBatch of the codec. What it gives is valid as long as the message.
  std::optional<std::vector<ChunkView>> DecodeBatch() const;

  // Calls `sink` with the bytes from `offset` on, run by run.
  void ForEachRun(uint64_t offset, const std::function<void(absl::Span<const std::byte>)>& sink) const;

  // Copies the bytes from `offset` to the end to `dst`, which has room for them, digesting them (XXH3-64) on the way.
  // Past the cache: if nobody reads them at once; see CopyPastCache.
  enum class Through { kCache, kPastCache };
  uint64_t CopyAndDigest(uint64_t offset, std::byte* dst, Through through = Through::kCache) const;

 private:
  grpc::ByteBuffer buffer_;
  std::vector<grpc::Slice> slices_;
  uint64_t size_ = 0;
  mutable std::unique_ptr<std::byte[]> in_one_piece_;  // of a batch, once decoded
};

}  // namespace refit

// Converts between protobuf messages, chunks and grpc::ByteBuffer.
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

// INVALID_ARGUMENT if `buffer` is not a valid encoding.
absl::Status Parse(const grpc::ByteBuffer& buffer, google::protobuf::MessageLite& message);

// Makes a message with a borrowed payload. `owner` is kept until gRPC releases the bytes, which may be long after the
// write is reported done.
grpc::ByteBuffer MakeChunkMessage(const ChunkHeader& header, absl::Span<const std::byte> payload,
                                  std::shared_ptr<const void> owner);

// As MakeChunkMessage, with a copy of the payload.
grpc::ByteBuffer CopyChunkMessage(const ChunkHeader& header, absl::Span<const std::byte> payload);

// Makes a batch of these entries; see AppendBatchEntry.
grpc::ByteBuffer MakeBatchMessage(std::string entries);

// A received message, split into its slices.
class ReceivedMessage {
 public:
  explicit ReceivedMessage(grpc::ByteBuffer buffer);

  uint64_t size() const { return size_; }
  const grpc::ByteBuffer& buffer() const { return buffer_; }

  // See DecodeChunkPrefix.
  absl::StatusOr<std::optional<DecodedChunk>> DecodeChunk() const;

  // See DecodeBatch of the codec. The result is valid as long as the message.
  std::optional<std::vector<ChunkView>> DecodeBatch() const;

  // Calls `sink` with the bytes from `offset` on, run by run.
  void ForEachRun(uint64_t offset, const std::function<void(absl::Span<const std::byte>)>& sink) const;

  // Copies the bytes from `offset` to the end to `dst`, which has room for them, and digests them (XXH3-64).
  // kPastCache: for bytes that are not read soon; see CopyPastCache.
  enum class Through { kCache, kPastCache };
  uint64_t CopyAndDigest(uint64_t offset, std::byte* dst, Through through = Through::kCache) const;

 private:
  grpc::ByteBuffer buffer_;
  std::vector<grpc::Slice> slices_;
  uint64_t size_ = 0;
  mutable std::unique_ptr<std::byte[]> in_one_piece_;  // of a batch, set once it is decoded
};

}  // namespace refit

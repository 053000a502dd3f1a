// Makes messages to send: of protobuf messages, and of chunks whose payload is borrowed.
#pragma once

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include <memory>
#include <string>

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

}  // namespace refit

// A received message: finds the chunks in it, and copies and digests their payload in one pass.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/wire/chunk_codec.h"

namespace refit {

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

// Checks that the hand-written chunk codec and generated protobuf agree, for any bytes.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "common/net/byte_buffer.h"
#include "common/net/messages.h"
#include "common/net/received_message.h"
#include "common/wire/digest.h"
#include "refit/v1/pull.pb.h"
#include "refit/v1/push.pb.h"
#include "tests/fuzz/fuzz_check.h"

namespace refit {

inline absl::Span<const std::byte> BytesOf(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Splits the message into slices of these sizes. The rest is in the last one.
inline grpc::ByteBuffer InSlices(const std::string& message, const std::vector<size_t>& sizes) {
  std::vector<grpc::Slice> slices;
  size_t at = 0;
  for (const size_t size : sizes) {
    slices.emplace_back(message.substr(std::min(at, message.size()), size));
    at += size;
  }
  slices.emplace_back(message.substr(std::min(at, message.size())));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

inline std::string PayloadOf(const ReceivedMessage& message, const DecodedChunk& chunk) {
  std::string payload;
  message.ForEachRun(chunk.payload_offset, [&](absl::Span<const std::byte> run) {
    payload.append(reinterpret_cast<const char*>(run.data()), run.size());
  });
  return payload;
}

// Checks that the codec and protobuf agree. Returns whether the codec accepts the message as a chunk in its own form.
inline bool CheckAgainstProtobuf(const std::string& bytes, const std::vector<size_t>& slice_sizes) {
  const ReceivedMessage message(InSlices(bytes, slice_sizes));
  FUZZ_CHECK(message.size() == bytes.size());
  const absl::StatusOr<std::optional<DecodedChunk>> decoded = message.DecodeChunk();

  // The result depends only on the head, however much more of the message is available.
  const auto whole = DecodeChunkPrefix(BytesOf(bytes), bytes.size());
  FUZZ_CHECK(whole.ok() == decoded.ok()) << whole.status().ToString() << decoded.status().ToString();
  if (whole.ok()) {
    FUZZ_CHECK(whole->has_value() == decoded->has_value());
  }

  v1::PushRequest pushed;
  v1::PullResponse pulled;
  const bool valid_push = Parse(message.buffer(), pushed).ok();
  const bool valid_pull = Parse(message.buffer(), pulled).ok();
  if (!decoded.ok()) {
    FUZZ_CHECK(decoded.status().code() == absl::StatusCode::kInvalidArgument);
    FUZZ_CHECK(!valid_push && !valid_pull) << "refused, but valid:" << decoded.status().ToString();
    return false;
  }
  if (!decoded->has_value()) {
    // If protobuf reads the message as only a chunk in our form, the codec must accept it. (Numbers of encodings are
    // never negative, and then have no form of ours.)
    if (!valid_push || !pushed.has_chunk() || pushed.chunk().encoding() < 0) return false;
    const std::string& payload = pushed.chunk().payload();
    FUZZ_CHECK(EncodeChunkPrefix(HeaderOf(pushed.chunk()), payload.size()) + payload != bytes);
    return false;
  }

  const DecodedChunk& chunk = **decoded;
  FUZZ_CHECK(chunk.payload_offset <= kMaxChunkPrefixBytes);
  FUZZ_CHECK(chunk.payload_offset + chunk.payload_bytes == bytes.size());
  const std::string payload = PayloadOf(message, chunk);
  FUZZ_CHECK(payload.size() == chunk.payload_bytes);
  FUZZ_CHECK(EncodeChunkPrefix(chunk.header, payload.size()) + payload == bytes) << "decoded from another form";
  FUZZ_CHECK(valid_push && pushed.has_chunk() && valid_pull && pulled.has_chunk());
  for (const v1::Chunk* parsed : {&pushed.chunk(), &pulled.chunk()}) {
    FUZZ_CHECK(HeaderOf(*parsed) == chunk.header);
    FUZZ_CHECK(parsed->payload() == payload);
  }
  std::vector<std::byte> copied(payload.size());
  FUZZ_CHECK(message.CopyAndDigest(chunk.payload_offset, copied.data()) == DigestBytes(BytesOf(payload)));
  FUZZ_CHECK(std::equal(copied.begin(), copied.end(), BytesOf(payload).begin()));
  return true;
}

}  // namespace refit

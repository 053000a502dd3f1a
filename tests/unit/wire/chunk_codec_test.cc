#include "common/wire/chunk_codec.h"

#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <random>

#include "refit/v1/pull.pb.h"
#include "refit/v1/push.pb.h"

namespace refit {
namespace {

// A copy of exactly this size, so that AddressSanitizer sees any read beyond it.
class Exactly {
 public:
  explicit Exactly(const std::string& bytes) : size_(bytes.size()), bytes_(std::make_unique<std::byte[]>(size_)) {
    std::copy_n(reinterpret_cast<const std::byte*>(bytes.data()), size_, bytes_.get());
  }
  absl::Span<const std::byte> span() const { return {bytes_.get(), size_}; }

 private:
  size_t size_;
  std::unique_ptr<std::byte[]> bytes_;
};

absl::StatusOr<std::optional<DecodedChunk>> Decode(const std::string& message) {
  return DecodeChunkPrefix(Exactly(message).span(), message.size());
}

class RandomChunks {
 public:
  explicit RandomChunks(uint64_t seed) : random_(seed) {}

  ChunkHeader Header() {
    ChunkHeader header;
    header.tensor = Number();
    header.offset = Number();
    header.encoding = static_cast<int>(Number() & std::numeric_limits<int32_t>::max());
    header.decoded_bytes = Number();
    header.digest = Number();
    if (random_() % 2 == 0) header.tensor_digest = Number();
    return header;
  }

  std::string Payload() {
    std::string payload(random_() % 4 == 0 ? 0 : random_() % 300, '\0');
    for (char& byte : payload) byte = static_cast<char>(random_());
    return payload;
  }

  uint64_t Below(uint64_t limit) { return random_() % limit; }

 private:
  // All lengths of varint alike, and 0 often.
  uint64_t Number() {
    const uint64_t bits = random_() % 65;
    return bits == 0 ? 0 : random_() >> (64 - bits);
  }

  std::mt19937_64 random_;
};

v1::PushRequest AsProto(const ChunkHeader& header, const std::string& payload) {
  v1::PushRequest request;
  v1::Chunk& chunk = *request.mutable_chunk();
  chunk.set_tensor(header.tensor);
  chunk.set_offset(header.offset);
  chunk.set_encoding(static_cast<v1::ChunkEncoding>(header.encoding));
  chunk.set_decoded_bytes(header.decoded_bytes);
  chunk.set_digest(header.digest);
  if (header.tensor_digest.has_value()) chunk.set_tensor_digest(*header.tensor_digest);
  chunk.set_payload(payload);
  return request;
}

TEST(ChunkCodec, WritesWhatProtobufWrites) {
  RandomChunks chunks(1);
  for (int round = 0; round < 20'000; ++round) {
    const ChunkHeader header = chunks.Header();
    const std::string payload = chunks.Payload();
    const std::string prefix = EncodeChunkPrefix(header, payload.size());
    ASSERT_LE(prefix.size(), kMaxChunkPrefixBytes);
    const std::string message = prefix + payload;
    const v1::PushRequest expected = AsProto(header, payload);
    if (!payload.empty()) {
      ASSERT_EQ(message, expected.SerializeAsString());
    }

    v1::PushRequest parsed;
    ASSERT_TRUE(parsed.ParseFromString(message));
    ASSERT_EQ(parsed.SerializeAsString(), expected.SerializeAsString());
    v1::PullResponse pulled;
    ASSERT_TRUE(pulled.ParseFromString(message));
    ASSERT_EQ(pulled.chunk().SerializeAsString(), expected.chunk().SerializeAsString());
  }
}

TEST(ChunkCodec, ReadsWhatProtobufWrites) {
  RandomChunks chunks(2);
  for (int round = 0; round < 20'000; ++round) {
    const ChunkHeader header = chunks.Header();
    const std::string payload = chunks.Payload() + "x";
    const std::string message = AsProto(header, payload).SerializeAsString();
    const auto decoded = Decode(message);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    ASSERT_TRUE(decoded->has_value());
    ASSERT_EQ((*decoded)->header, header);
    ASSERT_EQ((*decoded)->payload_bytes, payload.size());
    ASSERT_EQ(message.substr((*decoded)->payload_offset), payload);
  }
}

TEST(ChunkCodec, ReadsFromTheFirstBytesAlone) {
  RandomChunks chunks(3);
  for (int round = 0; round < 2'000; ++round) {
    const ChunkHeader header = chunks.Header();
    const uint64_t payload_bytes = uint64_t{1} << chunks.Below(40);
    std::string head = EncodeChunkPrefix(header, payload_bytes);
    const uint64_t message_bytes = head.size() + payload_bytes;
    const size_t prefix_bytes = head.size();
    head.resize(std::min<uint64_t>(kMaxChunkPrefixBytes, message_bytes), 'p');
    const auto decoded = DecodeChunkPrefix(Exactly(head).span(), message_bytes);
    ASSERT_TRUE(decoded.ok() && decoded->has_value());
    ASSERT_EQ((*decoded)->header, header);
    ASSERT_EQ((*decoded)->payload_offset, prefix_bytes);
    ASSERT_EQ((*decoded)->payload_bytes, payload_bytes);
  }
}

TEST(ChunkCodec, LargestPrefixFits) {
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  const ChunkHeader header{kMax, kMax, std::numeric_limits<int32_t>::max(), kMax, kMax, kMax};
  EXPECT_LE(EncodeChunkPrefix(header, uint64_t{1} << 62).size(), kMaxChunkPrefixBytes);
}

TEST(ChunkCodec, EmptyPayloadIsWritten) {
  const std::string message = EncodeChunkPrefix({}, 0);
  EXPECT_EQ(message, std::string("\x0a\x02\x7a\x00", 4));
  const auto decoded = Decode(message);
  ASSERT_TRUE(decoded.ok() && decoded->has_value());
  EXPECT_EQ((*decoded)->header, ChunkHeader{});
  EXPECT_EQ((*decoded)->payload_bytes, 0u);
}

TEST(ChunkCodec, TruncationIsAnError) {
  ChunkHeader header{3, 1 << 20, 0, 0, 0x1111, 0x2222};
  const std::string message = EncodeChunkPrefix(header, 20) + std::string(20, 'p');
  for (size_t size = 2; size < message.size(); ++size) {
    const auto decoded = Decode(message.substr(0, size));
    EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument) << size;
    EXPECT_NE(decoded.status().message().find("chunk message"), std::string::npos) << decoded.status();
  }
}

TEST(ChunkCodec, LyingLengthsAreAnError) {
  // The payload is said to be longer than the chunk that it ends.
  EXPECT_EQ(Decode(std::string("\x0a\x04\x7a\x03yy", 6)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Decode(std::string("\x0a\x7f\x7a\x01y", 5)).status().code(), absl::StatusCode::kInvalidArgument);
  // 2^64 - 1 bytes, which must not wrap around.
  EXPECT_EQ(Decode("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Decode("\x0a\x0b\x7a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ChunkCodec, OtherFormsAreLeftToProtobuf) {
  v1::PushRequest open;
  open.mutable_open()->set_model("m");
  const std::pair<const char*, std::string> cases[] = {
      {"empty message", ""},
      {"another field", open.SerializeAsString()},
      {"payload not last", std::string("\x0a\x05\x7a\x01p\x08\x01", 7)},
      {"fields in another order", std::string("\x0a\x07\x10\x01\x08\x01\x7a\x01p", 9)},
      {"a field twice", std::string("\x0a\x07\x08\x01\x08\x01\x7a\x01p", 9)},
      {"an explicit default", std::string("\x0a\x05\x08\x00\x7a\x01p", 7)},
      {"a long varint", std::string("\x0a\x06\x08\x81\x00\x7a\x01p", 8)},
      {"an unknown field", std::string("\x0a\x05\x40\x01\x7a\x01p", 7)},
      {"no payload", std::string("\x0a\x02\x08\x01", 4)},
      {"a second field after the chunk", std::string("\x0a\x03\x7a\x01p\x22\x00", 7)},
      {"a varint of more than 64 bits",
       std::string("\x0a\x0e\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x7a\x01p", 16)},
  };
  for (const auto& [what, message] : cases) {
    const auto decoded = Decode(message);
    ASSERT_TRUE(decoded.ok()) << what << ": " << decoded.status();
    EXPECT_FALSE(decoded->has_value()) << what;
  }
}

// Whatever comes, the codec either refuses it, or leaves it to protobuf, or reads just what protobuf reads.
TEST(ChunkCodec, DamagedMessagesAgreeWithProtobuf) {
  RandomChunks chunks(5);
  int accepted = 0;
  int refused = 0;
  for (int round = 0; round < 100'000; ++round) {
    const std::string payload = chunks.Payload().substr(0, 40);
    std::string message = EncodeChunkPrefix(chunks.Header(), payload.size()) + payload;
    if (chunks.Below(3) == 0) message.resize(chunks.Below(message.size() + 1));
    for (uint64_t flips = chunks.Below(3); flips > 0 && !message.empty(); --flips) {
      message[chunks.Below(message.size())] ^= static_cast<char>(1 << chunks.Below(8));
    }
    const auto decoded = Decode(message);
    v1::PushRequest parsed;
    const bool valid = parsed.ParseFromString(message);
    if (!decoded.ok()) {
      ++refused;
      ASSERT_FALSE(valid) << parsed.ShortDebugString();
    } else if (decoded->has_value()) {
      ++accepted;
      const DecodedChunk& chunk = **decoded;
      ASSERT_TRUE(valid);
      const std::string bytes = message.substr(chunk.payload_offset);
      ASSERT_EQ(chunk.payload_bytes, bytes.size());
      ASSERT_EQ(EncodeChunkPrefix(chunk.header, bytes.size()) + bytes, message);
      ASSERT_EQ(AsProto(chunk.header, bytes).SerializeAsString(), parsed.SerializeAsString());
    }
  }
  EXPECT_GT(accepted, 1000);
  EXPECT_GT(refused, 1000);
}

std::string Batch(RandomChunks& chunks, v1::PushRequest& same) {
  std::string message;
  for (uint64_t batches = 1 + chunks.Below(3); batches > 0; --batches) {
    std::string entries;
    for (uint64_t count = 1 + chunks.Below(4); count > 0; --count) {
      const ChunkHeader header = chunks.Header();
      const std::string payload = chunks.Payload();
      const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(payload.data()), payload.size());
      *same.mutable_chunks()->add_chunks() = AsProto(header, payload).chunk();
      AppendBatchEntry(header, bytes, entries);
    }
    message += EncodeBatchPrefix(entries.size()) + entries;
  }
  return message;
}

v1::PushRequest AsProto(const std::vector<ChunkView>& batch) {
  v1::PushRequest request;
  for (const ChunkView& chunk : batch) {
    const std::string payload(reinterpret_cast<const char*>(chunk.payload.data()), chunk.payload.size());
    *request.mutable_chunks()->add_chunks() = AsProto(chunk.header, payload).chunk();
  }
  return request;
}

TEST(ChunkCodec, BatchesAreProtobuf) {
  RandomChunks chunks(6);
  for (int round = 0; round < 5'000; ++round) {
    v1::PushRequest expected;
    const std::string message = Batch(chunks, expected);
    v1::PushRequest parsed;
    ASSERT_TRUE(parsed.ParseFromString(message));
    ASSERT_EQ(parsed.SerializeAsString(), expected.SerializeAsString());
    v1::PullResponse pulled;
    ASSERT_TRUE(pulled.ParseFromString(message));
    ASSERT_EQ(pulled.chunks().SerializeAsString(), expected.chunks().SerializeAsString());
    const Exactly exact(message);
    ASSERT_TRUE(IsBatch(exact.span().front()));
    const std::optional<std::vector<ChunkView>> decoded = DecodeBatch(exact.span());
    ASSERT_TRUE(decoded.has_value());
    ASSERT_EQ(AsProto(*decoded).SerializeAsString(), expected.SerializeAsString());
  }
}

TEST(ChunkCodec, DamagedBatchesAreLeftToProtobufOrReadAlike) {
  RandomChunks chunks(7);
  int decoded_ones = 0;
  int left = 0;
  for (int round = 0; round < 50'000; ++round) {
    v1::PushRequest intact;
    std::string message = Batch(chunks, intact);
    if (chunks.Below(3) == 0) message.resize(chunks.Below(message.size() + 1));
    for (uint64_t flips = chunks.Below(3); flips > 0 && !message.empty(); --flips) {
      message[chunks.Below(message.size())] ^= static_cast<char>(1 << chunks.Below(8));
    }
    const Exactly exact(message);
    const std::optional<std::vector<ChunkView>> decoded = DecodeBatch(exact.span());
    decoded.has_value() ? ++decoded_ones : ++left;
    if (!decoded.has_value() || message.empty()) continue;
    v1::PushRequest parsed;
    ASSERT_TRUE(parsed.ParseFromString(message));
    ASSERT_EQ(AsProto(*decoded).SerializeAsString(), parsed.SerializeAsString());
  }
  EXPECT_GT(decoded_ones, 1000);
  EXPECT_GT(left, 1000);
}

}  // namespace
}  // namespace refit

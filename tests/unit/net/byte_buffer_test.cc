#include "common/net/byte_buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "common/net/received_message.h"
#include "common/wire/digest.h"
#include "refit/v1/pull.pb.h"
#include "refit/v1/push.pb.h"

namespace refit {
namespace {

using Bytes = std::vector<std::byte>;

Bytes RandomBytes(size_t size) {
  std::mt19937 random(7);
  Bytes bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

std::string Flat(const grpc::ByteBuffer& buffer) {
  grpc::Slice slice;
  EXPECT_TRUE(buffer.DumpToSingleSlice(&slice).ok());
  return std::string(reinterpret_cast<const char*>(slice.begin()), slice.size());
}

grpc::ByteBuffer Cut(const std::string& bytes, size_t piece) {
  std::vector<grpc::Slice> slices;
  for (size_t offset = 0; offset < bytes.size(); offset += piece) slices.emplace_back(bytes.substr(offset, piece));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

TEST(ByteBuffer, SmallMessagesRoundTrip) {
  v1::PushRequest request;
  request.mutable_open()->set_model("default");
  request.mutable_open()->set_version(3);
  for (const size_t piece : {1, 3, 1000}) {
    v1::PushRequest parsed;
    ASSERT_TRUE(Parse(Cut(Flat(Serialize(request)), piece), parsed).ok());
    EXPECT_EQ(parsed.SerializeAsString(), request.SerializeAsString());
  }
  v1::PushRequest empty;
  EXPECT_TRUE(Parse(Serialize(empty), request).ok());
  EXPECT_EQ(request.request_case(), v1::PushRequest::REQUEST_NOT_SET);
}

TEST(ByteBuffer, GarbageIsRefused) {
  v1::PushRequest request;
  const absl::Status status = Parse(Cut("\x0a\x7f garbage", 4), request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("refit.v1.PushRequest"), std::string::npos) << status;
  EXPECT_FALSE(Parse(grpc::ByteBuffer(), request).ok());
}

TEST(ByteBuffer, ChunkMessagesAreProtobuf) {
  const Bytes payload = RandomBytes(100'000);
  const ChunkHeader header{4, 1 << 20, 0, 0, 0xabcdef, 77};
  const grpc::ByteBuffer copied = CopyChunkMessage(header, payload);
  const grpc::ByteBuffer borrowed = MakeChunkMessage(header, payload, nullptr);
  EXPECT_EQ(Flat(copied), Flat(borrowed));

  v1::PullResponse response;
  ASSERT_TRUE(Parse(borrowed, response).ok());
  EXPECT_EQ(response.chunk().tensor(), 4u);
  EXPECT_EQ(response.chunk().offset(), 1u << 20);
  EXPECT_EQ(response.chunk().tensor_digest(), 77u);
  EXPECT_EQ(response.chunk().payload(), std::string(reinterpret_cast<const char*>(payload.data()), payload.size()));

  const ReceivedMessage message(borrowed);
  const auto decoded = message.DecodeChunk();
  ASSERT_TRUE(decoded.ok() && decoded->has_value());
  EXPECT_EQ((*decoded)->header, header);
  EXPECT_EQ((*decoded)->payload_bytes, payload.size());
}

TEST(ByteBuffer, BorrowedPayloadIsNotCopied) {
  const Bytes payload = RandomBytes(1000);
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(MakeChunkMessage({}, payload, nullptr).Dump(&slices).ok());
  ASSERT_EQ(slices.size(), 2u);
  EXPECT_EQ(static_cast<const void*>(slices[1].begin()), static_cast<const void*>(payload.data()));
}

TEST(ByteBuffer, OwnerIsKeptAsLongAsTheMessage) {
  for (const size_t size : {size_t{1000}, size_t{1}, size_t{0}}) {
    auto payload = std::make_shared<Bytes>(RandomBytes(size));
    const std::weak_ptr<Bytes> watch = payload;
    auto message = std::make_unique<grpc::ByteBuffer>(MakeChunkMessage({}, *payload, payload));
    payload.reset();
    if (size > 0) {
      EXPECT_FALSE(watch.expired());
    }
    const auto second = std::make_unique<grpc::ByteBuffer>(*message);
    message.reset();
    if (size > 0) {
      EXPECT_FALSE(watch.expired());
    }
    second->Clear();
    EXPECT_TRUE(watch.expired());
  }
}

TEST(ReceivedMessage, TakesApartHoweverItIsSliced) {
  const Bytes payload = RandomBytes(5000);
  const ChunkHeader header{1, 2, 0, 0, DigestBytes(payload), std::nullopt};
  const std::string message = Flat(CopyChunkMessage(header, payload));
  for (const size_t piece : {1, 7, 40, 81, 4096, 100'000}) {
    const ReceivedMessage received(Cut(message, piece));
    EXPECT_EQ(received.size(), message.size());
    const auto decoded = received.DecodeChunk();
    ASSERT_TRUE(decoded.ok() && decoded->has_value()) << piece;
    EXPECT_EQ((*decoded)->header, header);

    Bytes runs;
    received.ForEachRun((*decoded)->payload_offset,
                        [&](absl::Span<const std::byte> run) { runs.insert(runs.end(), run.begin(), run.end()); });
    EXPECT_EQ(runs, payload);

    for (const auto through : {ReceivedMessage::Through::kCache, ReceivedMessage::Through::kPastCache}) {
      Bytes copy(payload.size());
      EXPECT_EQ(received.CopyAndDigest((*decoded)->payload_offset, copy.data(), through), header.digest);
      EXPECT_EQ(copy, payload);
    }
  }
}

TEST(ReceivedMessage, DigestsLargeRunsInPieces) {
  const Bytes payload = RandomBytes((64 << 10) * 3 + 17);
  const grpc::Slice slice(payload.data(), payload.size());
  const ReceivedMessage received(grpc::ByteBuffer(&slice, 1));
  for (const auto through : {ReceivedMessage::Through::kCache, ReceivedMessage::Through::kPastCache}) {
    Bytes copy(payload.size());
    EXPECT_EQ(received.CopyAndDigest(0, copy.data(), through), DigestBytes(payload));
    EXPECT_EQ(copy, payload);
    EXPECT_EQ(received.CopyAndDigest(payload.size(), nullptr, through), DigestBytes({}));
  }
}

TEST(ReceivedMessage, OfNothing) {
  const ReceivedMessage received{grpc::ByteBuffer()};
  EXPECT_EQ(received.size(), 0u);
  const auto decoded = received.DecodeChunk();
  EXPECT_TRUE(decoded.ok() && !decoded->has_value());
}

TEST(ReceivedMessage, TakesBatchesApartHoweverTheyAreSliced) {
  const Bytes payload = RandomBytes(1000);
  std::string entries;
  for (uint64_t tensor = 0; tensor < 20; ++tensor) {
    ChunkHeader header;
    header.tensor = tensor;
    AppendBatchEntry(header, absl::MakeConstSpan(payload).subspan(tensor), entries);
  }
  const std::string message = Flat(MakeBatchMessage(entries));
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{1000}, message.size()}) {
    const ReceivedMessage received(Cut(message, piece));
    for (int again = 0; again < 2; ++again) {
      const std::optional<std::vector<ChunkView>> batch = received.DecodeBatch();
      ASSERT_TRUE(batch.has_value());
      ASSERT_EQ(batch->size(), 20U);
      for (uint64_t tensor = 0; tensor < 20; ++tensor) {
        EXPECT_EQ((*batch)[tensor].header.tensor, tensor);
        EXPECT_EQ((*batch)[tensor].payload, absl::MakeConstSpan(payload).subspan(tensor));
      }
    }
  }
  EXPECT_FALSE(ReceivedMessage(Cut(message.substr(0, message.size() - 1), 7)).DecodeBatch().has_value());
  EXPECT_FALSE(ReceivedMessage(CopyChunkMessage({}, payload)).DecodeBatch().has_value());
  EXPECT_FALSE(ReceivedMessage(grpc::ByteBuffer()).DecodeBatch().has_value());
}

}  // namespace
}  // namespace refit

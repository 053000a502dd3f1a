#include "server/pull/delta_part.h"

#include <gtest/gtest.h>

#include <new>
#include <vector>

#include "common/wire/digest.h"

namespace refit {
namespace {

using Kind = EncodedDelta::Kind;

const std::vector<std::byte> kPayload(100, std::byte{7});

TEST(DeltaPart, EncodesAChunkOnce) {
  ChunkCache cache(1000);
  DeltaPart part(4, cache);
  EXPECT_EQ(part.Find(3).kind, Kind::kRaw);
  int encoded = 0;
  const auto encode = [&]() -> absl::StatusOr<EncodedDelta> {
    ++encoded;
    return EncodedDelta{Kind::kDelta, kPayload, 5};
  };
  for (const DeltaChunk& chunk : {part.Get(3, encode), part.Get(3, encode), part.Find(3)}) {
    EXPECT_EQ(chunk.kind, Kind::kDelta);
    ASSERT_NE(chunk.payload, nullptr);
    EXPECT_EQ(chunk.payload->size(), kPayload.size());
    EXPECT_EQ(chunk.digest, DigestBytes(kPayload));
    EXPECT_EQ(chunk.changed, 5u);
  }
  EXPECT_EQ(encoded, 1);
  EXPECT_EQ(part.Find(2).kind, Kind::kRaw);
}

TEST(DeltaPart, EncodesAgainWhatTheCacheHasDropped) {
  ChunkCache cache(1000);
  DeltaPart part(1, cache);
  const auto encode = [&]() -> absl::StatusOr<EncodedDelta> { return EncodedDelta{Kind::kDelta, kPayload, 5}; };
  part.Get(0, encode);
  cache.Drop(&part);
  EXPECT_EQ(part.Find(0).kind, Kind::kRaw);
  EXPECT_EQ(part.Get(0, encode).kind, Kind::kDelta);
  EXPECT_TRUE(part.is_kept());
}

TEST(DeltaPart, WithoutMemoryForItAChunkIsSentAsItIs) {
  ChunkCache cache(1000);
  DeltaPart part(1, cache);
  const auto fail = []() -> absl::StatusOr<EncodedDelta> { throw std::bad_alloc(); };
  EXPECT_EQ(part.Get(0, fail).kind, Kind::kRaw);
  EXPECT_EQ(part.Get(0, fail).kind, Kind::kRaw);  // and waits for nobody
}

}  // namespace
}  // namespace refit

#include "common/wire/digest.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <iterator>
#include <random>
#include <set>
#include <string>

namespace refit {
namespace {

std::vector<std::byte> RandomBytes(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

std::string LittleEndian(uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}

uint64_t Xxh3(const std::string& bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

// What digest.h says, word by word.
uint64_t TensorDigestAsDefined(absl::Span<const std::byte> tensor, uint64_t chunk_bytes) {
  std::string digests;
  for (uint64_t offset = 0; offset < tensor.size(); offset += chunk_bytes) {
    const auto block = tensor.subspan(offset, chunk_bytes);
    digests += LittleEndian(XXH3_64bits(block.data(), block.size()));
  }
  return Xxh3(digests);
}

TEST(Digest, OfKnownBytes) {
  EXPECT_EQ(DigestBytes({}), 0x2d06800538d394c2u);  // XXH3-64 of nothing, as xxhsum gives it
  const auto bytes = RandomBytes(1000, 1);
  EXPECT_EQ(DigestBytes(bytes), XXH3_64bits(bytes.data(), bytes.size()));
}

TEST(Digest, ChunkCount) {
  EXPECT_EQ(ChunkCount(0, 8), 1u);
  EXPECT_EQ(ChunkCount(1, 8), 1u);
  EXPECT_EQ(ChunkCount(8, 8), 1u);
  EXPECT_EQ(ChunkCount(9, 8), 2u);
  EXPECT_EQ(ChunkCount(UINT64_MAX, 1), UINT64_MAX);
}

TEST(Digest, OfTensors) {
  for (const size_t size : {0, 1, 7, 8, 9, 63, 64, 65, 1000, 4096}) {
    const auto bytes = RandomBytes(size, 2);
    for (const uint64_t chunk : {1, 8, 64, 4096, 10000}) {
      const uint64_t expected = TensorDigestAsDefined(bytes, chunk);
      EXPECT_EQ(DigestTensor(bytes, chunk), expected) << size << " by " << chunk;

      std::vector<uint64_t> blocks;
      for (size_t offset = 0; offset < size; offset += chunk) {
        blocks.push_back(DigestBytes(absl::MakeConstSpan(bytes).subspan(offset, chunk)));
      }
      EXPECT_EQ(TensorDigest(blocks), expected) << size << " by " << chunk;
    }
  }
}

TEST(Digest, DoesNotDependOnHowATensorIsCut) {
  const auto bytes = RandomBytes(10'000, 3);
  std::mt19937 random(4);
  for (const uint64_t chunk : {64, 1000, 4096, 20'000}) {
    for (int round = 0; round < 20; ++round) {
      TensorDigester digester(chunk);
      auto rest = absl::MakeConstSpan(bytes);
      uint64_t offset = 0;
      while (!rest.empty()) {
        auto piece = rest.subspan(0, 1 + random() % 2500);
        if (offset % chunk == 0 && random() % 2 == 0) {
          piece = rest.subspan(0, chunk);
          digester.UpdateBlock(DigestBytes(piece));
        } else {
          digester.Update(piece);
        }
        rest.remove_prefix(piece.size());
        offset += piece.size();
      }
      EXPECT_EQ(digester.Finish(), TensorDigestAsDefined(bytes, chunk));
    }
  }
}

TEST(Digest, TakesTheDigestsOfChunksHoweverTheyAreCut) {
  const auto bytes = RandomBytes(10'000, 5);
  std::mt19937 random(6);
  for (const uint64_t block : {64, 1000, 4096, 20'000}) {
    for (int round = 0; round < 20; ++round) {
      TensorDigester digester(block);
      auto rest = absl::MakeConstSpan(bytes);
      while (!rest.empty()) {
        const auto chunk = rest.subspan(0, random() % 2 == 0 ? block : 1 + random() % 2500);
        rest.remove_prefix(chunk.size());
        digester.UpdateChunk(chunk, DigestBytes(chunk), rest.empty());
      }
      EXPECT_EQ(digester.Finish(), TensorDigestAsDefined(bytes, block));
    }
  }
  TensorDigester empty(64);
  empty.UpdateChunk({}, DigestBytes({}), true);
  EXPECT_EQ(empty.Finish(), TensorDigestAsDefined({}, 64));
}

TEST(Digest, OfManifests) {
  ManifestDigester digester;
  EXPECT_EQ(digester.Finish(), Xxh3(""));
  digester.Add(TensorSpec{"a.weight", DType::kBF16, {128, 2816}}, 0x0123456789abcdefu);
  digester.Add(TensorSpec{"scale", DType::kF32, {}}, 7);
  const std::string nul(1, '\0');
  const std::string text = "a.weight" + nul + "BF16" + nul + "128,2816" + nul + LittleEndian(0x0123456789abcdefu) +
                           "scale" + nul + "F32" + nul + "" + nul + LittleEndian(7);
  EXPECT_EQ(digester.Finish(), Xxh3(text));
}

uint64_t DigestOf(const TensorPart& part) {
  ManifestDigester digester;
  digester.Add(part, 7);
  return digester.Finish();
}

TEST(Digest, OfManifestsOfParts) {
  const std::string nul(1, '\0');
  const TensorSpec spec{"a.weight", DType::kBF16, {128, 2816}};
  EXPECT_EQ(DigestOf({spec, {{16, 0}, {8, 2816}}}),
            Xxh3("a.weight" + nul + "BF16" + nul + "128,2816@16,0+8,2816" + nul + LittleEndian(7)));
  EXPECT_EQ(DigestOf({spec, {{128, 1}, {0, 1}}}),
            Xxh3("a.weight" + nul + "BF16" + nul + "128,2816@128,1+0,1" + nul + LittleEndian(7)));
}

TEST(Digest, OfManifestsTakesAWholePartForItsTensor) {
  for (const Shape& shape : {Shape{}, Shape{0}, Shape{3, 0, 2}, Shape{128, 2816}}) {
    const TensorSpec spec{"t", DType::kF32, shape};
    ManifestDigester digester;
    digester.Add(spec, 7);
    EXPECT_EQ(DigestOf(TensorPart::Whole(spec)), digester.Finish());
  }
}

TEST(Digest, OfManifestsSeesTheBox) {
  const TensorSpec spec{"t", DType::kF32, {4, 4}};
  const Box boxes[] = {WholeBox(spec.shape), {{0, 0}, {2, 4}}, {{2, 0}, {2, 4}}, {{0, 0}, {4, 2}},
                       {{0, 1}, {4, 2}},     {{1, 0}, {0, 4}}, {{0, 0}, {0, 4}}};
  std::set<uint64_t> digests;
  for (const Box& box : boxes) digests.insert(DigestOf({spec, box}));
  EXPECT_EQ(digests.size(), std::size(boxes));
}

TEST(Digest, OfManifestsSeesEveryField) {
  const auto digest = [](const TensorSpec& spec, uint64_t tensor_digest) {
    ManifestDigester digester;
    digester.Add(spec, tensor_digest);
    return digester.Finish();
  };
  const uint64_t base = digest({"a", DType::kF32, {1, 2}}, 1);
  EXPECT_NE(base, digest({"b", DType::kF32, {1, 2}}, 1));
  EXPECT_NE(base, digest({"a", DType::kBF16, {1, 2}}, 1));
  EXPECT_NE(base, digest({"a", DType::kF32, {12}}, 1));
  EXPECT_NE(base, digest({"a", DType::kF32, {1, 2}}, 2));
}

}  // namespace
}  // namespace refit

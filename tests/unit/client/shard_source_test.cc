#include "client/native/shard_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>

#include "common/safetensors/shard_metadata.h"

namespace refit {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

std::shared_ptr<const NativeSource> Synthetic() {
  auto source = OpenSyntheticSource({.model = "gemma4_tiny", .layers = 2});
  EXPECT_TRUE(source.ok()) << source.status();
  return *std::move(source);
}

Bytes ReadWhole(const NativeSource& source, size_t index) {
  Bytes bytes(source.tensors()[index].ByteSize());
  const auto view = source.Read(index, 0, bytes.size(), absl::MakeSpan(bytes));
  return Bytes(view.begin(), view.end());
}

// Element by element.
Bytes Slice(const Bytes& whole, const TensorPart& part) {
  const size_t element = ElementSize(part.tensor.dtype);
  const Shape& shape = part.tensor.shape;
  Bytes slice;
  Shape at(shape.size(), 0);
  for (int64_t i = 0; i < ElementCount(part.box); ++i) {
    int64_t place = 0;
    for (size_t d = 0; d < shape.size(); ++d) place = place * shape[d] + part.box.offsets[d] + at[d];
    const auto begin = whole.begin() + place * static_cast<int64_t>(element);
    slice.insert(slice.end(), begin, begin + static_cast<int64_t>(element));
    for (size_t d = shape.size(); d-- > 0;) {
      if (++at[d] < part.box.sizes[d]) break;
      at[d] = 0;
    }
  }
  return slice;
}

Box RandomBox(const Shape& shape, std::mt19937& random) {
  Box box = WholeBox(shape);
  for (size_t d = 0; d < shape.size(); ++d) {
    if (random() % 3 == 0) continue;
    box.sizes[d] = std::uniform_int_distribution<int64_t>(0, shape[d])(random);
    box.offsets[d] = std::uniform_int_distribution<int64_t>(0, shape[d] - box.sizes[d])(random);
  }
  return box;
}

// In pieces of random sizes, whole elements each.
Bytes ReadInPieces(const ShardSource& source, size_t index, std::mt19937& random) {
  const TensorPart& part = source.shards()[index];
  const uint64_t element = ElementSize(part.tensor.dtype);
  Bytes bytes;
  for (uint64_t offset = 0; offset < part.ByteSize();) {
    const uint64_t left = (part.ByteSize() - offset) / element;
    const uint64_t size = element * std::uniform_int_distribution<uint64_t>(1, left)(random);
    Bytes scratch(source.is_resident(index) ? 0 : size);
    const auto view = source.Read(index, offset, size, absl::MakeSpan(scratch));
    EXPECT_EQ(view.size(), size);
    bytes.insert(bytes.end(), view.begin(), view.end());
    offset += size;
  }
  return bytes;
}

void ExpectSlices(std::shared_ptr<const NativeSource> source, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<TensorPart> parts;
  for (const TensorSpec& tensor : source->tensors()) parts.push_back({tensor, RandomBox(tensor.shape, random)});
  const auto cut = ShardSource::Cut(source, parts);
  ASSERT_TRUE(cut.ok()) << cut.status();
  ASSERT_EQ((*cut)->shards(), parts);
  for (size_t i = 0; i < parts.size(); ++i) {
    EXPECT_EQ(ReadInPieces(**cut, i, random), Slice(ReadWhole(*source, i), parts[i])) << parts[i].ToString();
    // What is borrowed must be of the source's own memory, and that only.
    EXPECT_EQ((*cut)->is_resident(i),
              source->is_resident() && BoxRuns(parts[i].tensor.shape, parts[i].box).is_contiguous());
  }
}

class ShardSourceTest : public ::testing::Test {
 public:
  ShardSourceTest() {
    std::string pattern = testing::TempDir() + "refit_shards_XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~ShardSourceTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

 protected:
  std::string Write(const std::vector<TensorSpec>& tensors, const std::vector<Bytes>& data,
                    const std::map<std::string, std::string>& metadata = {}) const {
    const std::string path = folder_ / "f.safetensors";
    auto writer = SafetensorsWriter::Create(path, tensors, metadata);
    EXPECT_TRUE(writer.ok()) << writer.status();
    for (size_t i = 0; i < tensors.size(); ++i) EXPECT_TRUE((*writer)->WriteAt(i, 0, data[i]).ok());
    EXPECT_TRUE((*writer)->Commit().ok());
    return path;
  }

  // The synthetic tensors as a file.
  std::string WriteSynthetic() const {
    const auto source = Synthetic();
    std::vector<Bytes> data;
    for (size_t i = 0; i < source->tensors().size(); ++i) data.push_back(ReadWhole(*source, i));
    return Write(source->tensors(), data);
  }

  std::filesystem::path folder_;
};

TEST_F(ShardSourceTest, CutsWhatIsMadeOnTheFly) {
  for (unsigned seed = 1; seed <= 5; ++seed) ExpectSlices(Synthetic(), seed);
}

TEST_F(ShardSourceTest, CutsFiles) {
  const auto source = OpenCheckpointSource(WriteSynthetic());
  ASSERT_TRUE(source.ok()) << source.status();
  for (unsigned seed = 1; seed <= 5; ++seed) ExpectSlices(*source, seed);
}

TEST_F(ShardSourceTest, ContiguousPartsOfFilesAreBorrowed) {
  const auto source = OpenCheckpointSource(Write({{"w", DType::kU8, {4, 2}}}, {Bytes(8, std::byte{7})}));
  ASSERT_TRUE(source.ok()) << source.status();
  const auto rows = ShardSource::Cut(*source, {{(*source)->tensors()[0], {{1, 0}, {2, 2}}}});
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_TRUE((*rows)->is_resident(0));
  EXPECT_EQ((*rows)->Read(0, 1, 3, {}).data(), (*source)->Read(0, 0, 8, {}).data() + 3);
  const auto columns = ShardSource::Cut(*source, {{(*source)->tensors()[0], {{0, 1}, {4, 1}}}});
  ASSERT_TRUE(columns.ok()) << columns.status();
  EXPECT_FALSE((*columns)->is_resident(0));
  const auto whole = ShardSource::Whole(*source);
  EXPECT_TRUE(whole->is_resident(0));
  EXPECT_TRUE(whole->shards()[0].is_whole());
  EXPECT_EQ(whole->Read(0, 0, 8, {}).data(), (*source)->Read(0, 0, 8, {}).data());
}

TEST_F(ShardSourceTest, PartsOfOtherTensorsAreRefused) {
  const auto source = Synthetic();
  std::vector<TensorPart> parts;
  for (const TensorSpec& tensor : source->tensors()) parts.push_back(TensorPart::Whole(tensor));
  const auto error = [&](const std::vector<TensorPart>& wrong) {
    const absl::Status status = ShardSource::Cut(source, wrong).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(error({}), HasSubstr("0 shards of"));
  std::vector<TensorPart> wrong = parts;
  std::swap(wrong[0], wrong[1]);
  EXPECT_THAT(error(wrong), HasSubstr(parts[0].tensor.name));
  wrong = parts;
  wrong[3].box.offsets[0] = 1;
  EXPECT_THAT(error(wrong), HasSubstr(parts[3].tensor.name));
}

TEST_F(ShardSourceTest, FilesOfShardsAreTakenAsTheyAre) {
  Bytes half(6, std::byte{1});
  half[2] = std::byte{9};
  const std::string path = Write(
      {{"whole", DType::kU8, {2}}, {"half", DType::kU8, {2, 3}}}, {Bytes(2), half},
      {{kShardsKey, R"({"gone": {"shape": [4], "dtype": "BF16"}, "half": {"shape": [4, 3], "offsets": [2, 0]}})"}});
  const auto shards = ShardSource::OpenFiles(path);
  ASSERT_TRUE(shards.ok()) << shards.status();
  ASSERT_NE(*shards, nullptr);
  ASSERT_EQ((*shards)->shards().size(), 3u);
  EXPECT_EQ((*shards)->shards()[0].ToString(), "gone BF16 [4] box [0:0]");
  EXPECT_EQ((*shards)->shards()[1].ToString(), "half U8 [4, 3] box [2:4, 0:3]");
  EXPECT_EQ((*shards)->shards()[2].ToString(), "whole U8 [2]");
  EXPECT_TRUE((*shards)->is_resident(1));
  const auto read = (*shards)->Read(1, 0, 6, {});
  EXPECT_EQ(Bytes(read.begin(), read.end()), half);
  EXPECT_EQ((*shards)->Read(1, 2, 1, {})[0], std::byte{9});
  EXPECT_TRUE((*shards)->Read(0, 0, 0, {}).empty());
}

TEST_F(ShardSourceTest, OtherFilesHoldNoShards) {
  const auto none = ShardSource::OpenFiles(Write({{"w", DType::kU8, {1}}}, {Bytes(1)}));
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(*none, nullptr);
  EXPECT_EQ(ShardSource::OpenFiles(folder_ / "nowhere").status().code(), absl::StatusCode::kNotFound);
  const auto broken = ShardSource::OpenFiles(Write({{"w", DType::kU8, {1}}}, {Bytes(1)}, {{kShardsKey, "{"}}));
  EXPECT_EQ(broken.status().code(), absl::StatusCode::kInvalidArgument);
}

// As torch.distributed.checkpoint saves them: w [4] in two ranks' files, the second of which has nothing of v [1].
TEST_F(ShardSourceTest, ARanksFileOfTorchIsThatRanksShards) {
  const auto write = [&](int rank, const std::string& name, const std::string& sharding,
                         const std::vector<TensorSpec>& specs) {
    const std::string path = folder_ / ("shard-0000" + std::to_string(rank) + "-model-" + name + ".safetensors");
    auto writer = SafetensorsWriter::Create(path, specs, {{"DCP_SHARDING_INFO", sharding}});
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (size_t i = 0; i < specs.size(); ++i) {
      ASSERT_TRUE((*writer)->WriteAt(i, 0, Bytes(specs[i].ByteSize(), static_cast<std::byte>(rank))).ok());
    }
    ASSERT_TRUE((*writer)->Commit().ok());
  };
  write(1, "00001-of-00002", R"({"w": {"saved_offsets": [0]}})", {{"w", DType::kU8, {2}}});
  write(1, "00002-of-00002", R"({"v": {"saved_offsets": [0]}})", {{"v", DType::kU8, {1}}});
  write(2, "00001-of-00002", R"({"w": {"saved_offsets": [2]}})", {{"w", DType::kU8, {2}}});
  const std::string path = folder_ / "shard-00002-model-00001-of-00002.safetensors";
  EXPECT_EQ(ShardSource::OpenFiles(path).status().code(), absl::StatusCode::kInvalidArgument);
  const auto second = ShardSource::OpenFiles(path, {.ranks = 2});
  ASSERT_TRUE(second.ok()) << second.status();
  ASSERT_NE(*second, nullptr);
  const std::vector<TensorPart> expected = {{{"w", DType::kU8, {4}}, {{2}, {2}}}, {{"v", DType::kU8, {1}}, {{0}, {0}}}};
  EXPECT_EQ((*second)->shards(), expected);
  Bytes scratch(2);
  const auto read = (*second)->Read(0, 0, 2, absl::MakeSpan(scratch));
  EXPECT_EQ(Bytes(read.begin(), read.end()), Bytes(2, std::byte{2}));
  const auto three = ShardSource::OpenFiles(path, {.ranks = 3});
  EXPECT_EQ(three.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(three.status().message()), HasSubstr("ranks 3 of 3"));
  const auto folder = OpenCheckpointSource(folder_);
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(ReadWhole(**folder, 0), (Bytes{std::byte{1}, std::byte{1}, std::byte{2}, std::byte{2}}));
}

}  // namespace
}  // namespace refit

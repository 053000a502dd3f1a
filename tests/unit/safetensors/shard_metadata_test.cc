#include "common/safetensors/shard_metadata.h"

#include <gmock/gmock.h>

#include <map>
#include <utility>

#include "test_files.h"

namespace refit {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(ParseShardMetadata, KeepsTheOrderOfTheObject) {
  const auto entries = ParseShardMetadata(
      R"({"z": {"shape": [4, 3], "offsets": [2, 0]}, "a": {"dtype": "BF16", "shape": [7]}, "m": {"offsets": [], "shape": []}})");
  ASSERT_TRUE(entries.ok()) << entries.status();
  EXPECT_THAT(*entries, ElementsAre(ShardEntry{"z", {4, 3}, Shape{2, 0}, std::nullopt},
                                    ShardEntry{"a", {7}, std::nullopt, DType::kBF16},
                                    ShardEntry{"m", {}, Shape{}, std::nullopt}));
  EXPECT_THAT(*ParseShardMetadata("{}"), IsEmpty());
}

TEST(ParseShardMetadata, SaysWhatIsWrong) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "no valid JSON"},
      {"[]", "expected an object, got an array"},
      {"7", "expected an object, got 7"},
      {R"({"a": 1})", "tensor \"a\": expected an object, got 1"},
      {R"({"a": [1]})", "tensor \"a\": expected an object, got an array"},
      {R"({"a": {}})", "tensor \"a\": shape is missing"},
      {R"({"a": {"offsets": [1]}})", "tensor \"a\": shape is missing"},
      {R"({"a": {"shape": 3}})", "tensor \"a\": shape: expected an array of numbers, got 3"},
      {R"({"a": {"shape": {"b": 3}}})", "tensor \"a\": shape: expected an array of numbers, got an object"},
      {R"({"a": {"shape": [-1]}})", "tensor \"a\": shape: expected whole numbers from 0 to 2^63-1, got -1"},
      {R"({"a": {"shape": [1.5]}})", "shape: expected whole numbers from 0 to 2^63-1, got the number 1.5"},
      {R"({"a": {"shape": [9223372036854775808]}})", "got 9223372036854775808"},
      {R"({"a": {"shape": [99999999999999999999]}})", "shape: expected whole numbers"},
      {R"({"a": {"shape": ["1"]}})", "shape: expected whole numbers from 0 to 2^63-1, got \"1\""},
      {R"({"a": {"shape": [[1]]}})", "shape: expected whole numbers from 0 to 2^63-1, got an array"},
      {R"({"a": {"shape": [null]}})", "got null"},
      {R"({"a": {"shape": [1], "offsets": [true]}})",
       "offsets: expected whole numbers from 0 to 2^63-1, got a boolean"},
      {R"({"a": {"shape": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}})", "shape: expected at most 16 numbers, got more"},
      {R"({"a": {"shape": [1], "dtype": "BF17"}})", "BF17"},
      {R"({"a": {"shape": [1], "dtype": 3}})", "dtype: expected the name of a dtype, got 3"},
      {R"({"a": {"shape": [1], "dtype": ["BF16"]}})", "dtype: expected the name of a dtype, got an array"},
      {R"({"a": {"shape": [1], "size": [1]}})", "unknown key \"size\"; expected shape, offsets and dtype"},
      {R"({"a": {"shape": [1], "shape": [1]}})", "tensor \"a\": shape is there twice"},
      {R"({"a": {"shape": [1], "offsets": [], "offsets": []}})", "tensor \"a\": offsets is there twice"},
      {R"({"a": {"shape": [1]}, "b": {"shape": [1]}, "a": {"shape": [1]}})", "tensor \"a\": is there twice"},
  };
  for (const auto& [json, message] : cases) {
    const absl::Status status = ParseShardMetadata(json).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << json;
  }
}

TEST(FormatShardMetadata, IsWhatParseReads) {
  const TensorPart parts[] = {{{"w\"\n", DType::kF32, {4, 3}}, {{2, 0}, {2, 3}}},
                              {{"gone", DType::kBF16, {5}}, {{5}, {0}}},
                              TensorPart::Whole({"scalar", DType::kF32, {}})};
  const auto json = FormatShardMetadata(parts);
  ASSERT_TRUE(json.ok()) << json.status();
  const auto entries = ParseShardMetadata(*json);
  ASSERT_TRUE(entries.ok()) << entries.status() << *json;
  EXPECT_THAT(*entries, ElementsAre(ShardEntry{"w\"\n", {4, 3}, Shape{2, 0}, std::nullopt},
                                    ShardEntry{"gone", {5}, Shape{5}, DType::kBF16},
                                    ShardEntry{"scalar", {}, Shape{}, std::nullopt}));
  const TensorPart unprintable[] = {TensorPart::Whole({"\xff", DType::kF32, {1}})};
  EXPECT_EQ(FormatShardMetadata(unprintable).status().code(), absl::StatusCode::kInvalidArgument);
}

class ReadShardsTest : public FolderTest {
 protected:
  // A file of these tensors, filled with zeros, with this metadata if there is any.
  std::string WriteTensors(const std::string& name, const std::vector<TensorSpec>& tensors,
                           const std::string& metadata) const {
    std::map<std::string, std::string> all;
    if (!metadata.empty()) all[kShardsKey] = metadata;
    auto writer = SafetensorsWriter::Create(Path(name), tensors, all);
    EXPECT_TRUE(writer.ok()) << writer.status();
    for (size_t i = 0; i < tensors.size(); ++i) {
      EXPECT_TRUE((*writer)->WriteAt(i, 0, AsBytes(std::string(tensors[i].ByteSize(), '\0'))).ok());
    }
    EXPECT_TRUE((*writer)->Commit().ok());
    return Path(name);
  }

  static absl::StatusOr<std::optional<std::vector<FileShard>>> Read(const std::string& path) {
    auto checkpoint = Checkpoint::Open(path);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return ReadShards(**checkpoint);
  }

  absl::Status ReadOne(const std::vector<TensorSpec>& tensors, const std::string& metadata) const {
    return Read(WriteTensors("f.safetensors", tensors, metadata)).status();
  }
};

MATCHER_P3(IsShard, text, bytes, index, "") {
  *result_listener << arg.part.ToString();
  return arg.part.ToString() == text && arg.part.ByteSize() == uint64_t(bytes) && arg.index == index;
}

using Index = std::optional<size_t>;

TEST_F(ReadShardsTest, WithoutTheKeyThereAreNone) {
  const auto shards = Read(WriteTensors("f.safetensors", {{"a", DType::kU8, {2}}}, ""));
  ASSERT_TRUE(shards.ok()) << shards.status();
  EXPECT_FALSE(shards->has_value());
}

TEST_F(ReadShardsTest, NamedOnesComeFirstInTheirOrder) {
  const auto shards =
      Read(WriteTensors("f.safetensors",
                        {{"whole2", DType::kU8, {4}},
                         {"part", DType::kBF16, {2, 3}},
                         {"none", DType::kF32, {0, 2}},
                         {"whole1", DType::kU8, {}}},
                        R"({"absent": {"shape": [8, 2], "dtype": "F32"}, "none": {"shape": [4, 2], "offsets": [4, 0]},
          "part": {"shape": [4, 3], "offsets": [1, 0]}})"));
  ASSERT_TRUE(shards.ok()) << shards.status();
  ASSERT_TRUE(shards->has_value());
  EXPECT_THAT(**shards, ElementsAre(IsShard("absent F32 [8, 2] box [0:0, 0:0]", 0, Index()),
                                    IsShard("none F32 [4, 2] box [4:4, 0:2]", 0, Index(2)),
                                    IsShard("part BF16 [4, 3] box [1:3, 0:3]", 12, Index(1)),
                                    IsShard("whole2 U8 [4]", 4, Index(0)), IsShard("whole1 U8 []", 1, Index(3))));
}

TEST_F(ReadShardsTest, AFolderIsReadAsOne) {
  const std::string both = R"({"a": {"shape": [4], "offsets": [2]}, "b": {"shape": [3], "offsets": [0]}})";
  const auto write = [&](const std::string& first, const std::string& second) {
    WriteTensors("1.safetensors", {{"b", DType::kU8, {1}}}, first);
    WriteTensors("2.safetensors", {{"a", DType::kU8, {2}}}, second);
    WriteFile("model.safetensors.index.json", R"({"weight_map": {"a": "2.safetensors", "b": "1.safetensors"}})");
    return Read(folder_);
  };
  for (const std::string& second : {both, std::string()}) {
    const auto shards = write(both, second);
    ASSERT_TRUE(shards.ok()) << shards.status();
    EXPECT_THAT(**shards,
                ElementsAre(IsShard("a U8 [4] box [2:4]", 2, Index(1)), IsShard("b U8 [3] box [0:1]", 1, Index(0))));
  }
  const absl::Status status = write(both, R"({"a": {"shape": [4], "offsets": [1]}})").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("2.safetensors: metadata refit.shards: tensor \"a\""));
  EXPECT_THAT(std::string(status.message()), HasSubstr("1.safetensors says something else"));
}

TEST_F(ReadShardsTest, WhatDoesNotFitNamesFileAndTensor) {
  const std::vector<TensorSpec> held = {{"w", DType::kBF16, {2, 3}}};
  const std::pair<std::string, std::string> cases[] = {
      {"{", "no valid JSON"},
      {R"({"w": {"shape": [4, 3]}})", "offsets are missing"},
      {R"({"w": {"shape": [4, 3], "offsets": [0]}})", "1 offsets and 2 sizes"},
      {R"({"w": {"shape": [4], "offsets": [0]}})", "in a tensor of shape [4]"},
      {R"({"w": {"shape": [4, 3], "offsets": [3, 0]}})", "offset 3 and size 2 in dimension 0 is out of bounds"},
      {R"({"w": {"shape": [4, 2], "offsets": [0, 0]}})", "offset 0 and size 3 in dimension 1 is out of bounds"},
      {R"({"w": {"shape": [4, 3], "offsets": [9223372036854775807, 0]}})", "out of bounds"},
      {R"({"w": {"shape": [4294967296, 4294967296], "offsets": [0, 0]}})", "w"},
      {R"({"w": {"shape": [4, 3], "offsets": [0, 0], "dtype": "F32"}})", "the dtype is said to be F32"},
      {R"({"x": {"shape": [4]}})", "tensor \"x\" is not in the file: a dtype is needed"},
      {R"({"x": {"shape": [], "dtype": "F32"}})", "tensor \"x\" is not in the file: a 0-D tensor"},
      {R"({"x": {"shape": [4], "offsets": [5], "dtype": "F32"}})", "offset 5 and size 0"},
      {R"({"x": {"shape": [4], "offsets": [], "dtype": "F32"}})", "0 offsets and 1 sizes"},
      {R"({"x": {"shape": [9223372036854775807], "dtype": "F32"}})", "x"},
      {R"({"": {"shape": [4], "dtype": "F32"}})", "name"},
  };
  for (const auto& [metadata, message] : cases) {
    const absl::Status status = ReadOne(held, metadata);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << metadata;
    EXPECT_THAT(std::string(status.message()), HasSubstr("f.safetensors: metadata refit.shards: ")) << metadata;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << metadata;
  }
}

}  // namespace
}  // namespace refit

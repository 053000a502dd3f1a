#include "common/safetensors/dcp_shards.h"

#include <gmock/gmock.h>

#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/safetensors/safetensors.h"
#include "test_files.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A tensor's part, and its bytes.
struct Shard {
  TensorPart part;
  std::string bytes;
};

// Elements of the box, cut from the row-major bytes of the whole.
std::string Cut(const std::string& whole, const TensorPart& part) {
  const size_t element = ElementSize(part.tensor.dtype);
  std::string bytes;
  BoxRuns(part.tensor.shape, part.box).ForEach(0, ElementCount(part.box), [&](int64_t place, int64_t count) {
    bytes += whole.substr(static_cast<size_t>(place) * element, static_cast<size_t>(count) * element);
  });
  return bytes;
}

class DcpShardsTest : public FolderTest {
 protected:
  // As torch.distributed.checkpoint's HuggingFaceStorageWriter writes a rank's file.
  std::string WriteShards(const std::string& name, const std::vector<Shard>& shards) const {
    std::vector<std::string> sharding;
    std::vector<std::string> members;
    std::string data;
    for (const Shard& shard : shards) {
      const TensorSpec spec = shard.part.spec();
      sharding.push_back(absl::StrFormat(R"(\"%s\": {\"saved_offsets\": [%s]})", spec.name,
                                         absl::StrJoin(shard.part.box.offsets, ", ")));
      members.push_back(absl::StrFormat(R"("%s":{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]})", spec.name,
                                        Name(spec.dtype), absl::StrJoin(spec.shape, ","), data.size(),
                                        data.size() + shard.bytes.size()));
      data += shard.bytes;
    }
    return WriteFile(name,
                     FileOf(absl::StrCat(R"({"__metadata__":{"DCP_SHARDING_INFO":"{)", absl::StrJoin(sharding, ", "),
                                         R"(}","DCP_VERSION":"1.0","format":"pt"},)", absl::StrJoin(members, ","), "}"),
                            data));
  }

  static std::string NameOfRank(int rank) {
    return absl::StrFormat("shard-%05d-model-00001-of-00001.safetensors", rank);
  }

  // Rank 1's part of a tensor w [4]; it has four ranks at most.
  void WriteBytes(int rank, int64_t offset, const std::string& bytes, const std::string& tensor = "w") const {
    const auto size = static_cast<int64_t>(bytes.size());
    WriteShards(NameOfRank(rank), {{{{tensor, DType::kU8, {4}}, {{offset}, {size}}}, bytes}});
  }

  std::string Refusal() const {
    const absl::Status status = Checkpoint::Open(folder_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(folder_));
    return std::string(status.message());
  }
};

std::string ReadWhole(const Checkpoint& checkpoint, size_t index) {
  std::string scratch(checkpoint.tensors()[index].ByteSize(), '?');
  auto* bytes = reinterpret_cast<std::byte*>(scratch.data());
  return AsString(checkpoint.Read(index, 0, scratch.size(), {bytes, scratch.size()}));
}

TEST_F(DcpShardsTest, FileNamesTellTheRank) {
  EXPECT_EQ(DcpRankOf("shard-00003-model-00001-of-00002.safetensors"), 3u);
  EXPECT_EQ(DcpRankOf("shard-123456-model-00001-of-00002.safetensors"), 123456u);
  for (const char* other : {"model-00001-of-00002.safetensors", "shard-00000-model-00001-of-00002.safetensors",
                            "shard-x-model-00001-of-00002.safetensors", "shard-00001.safetensors",
                            "shard-00001-model-00001-of-00002.bin", "shard-"}) {
    EXPECT_EQ(DcpRankOf(other), std::nullopt) << other;
  }
}

TEST_F(DcpShardsTest, AFolderIsWholeTensors) {
  WriteShards(NameOfRank(1), {{{{"rows", DType::kU8, {4, 2}}, {{0, 0}, {2, 2}}}, "abcd"},
                              {{{"columns", DType::kU8, {2, 3}}, {{0, 0}, {2, 2}}}, "ABDE"},
                              {{{"scalar", DType::kU8, {}}, {}}, "s"}});
  WriteShards(NameOfRank(2), {{{{"columns", DType::kU8, {2, 3}}, {{0, 2}, {2, 1}}}, "CF"},
                              {{{"rows", DType::kU8, {4, 2}}, {{2, 0}, {2, 2}}}, "efgh"},
                              {{{"late", DType::kU8, {1}}, {{0}, {1}}}, "l"}});
  const auto checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->tensors(),
              ElementsAre(TensorSpec{"rows", DType::kU8, {4, 2}}, TensorSpec{"columns", DType::kU8, {2, 3}},
                          TensorSpec{"scalar", DType::kU8, {}}, TensorSpec{"late", DType::kU8, {1}}));
  EXPECT_EQ(ReadWhole(**checkpoint, 0), "abcdefgh");
  EXPECT_EQ(ReadWhole(**checkpoint, 1), "ABCDEF");
  EXPECT_EQ(ReadWhole(**checkpoint, 2), "s");
  EXPECT_EQ(ReadWhole(**checkpoint, 3), "l");
  EXPECT_THAT((*checkpoint)->note(), HasSubstr("the shards of 2 ranks"));
  const std::vector<TensorPart> second = (*checkpoint)->PartsOfRank(2);
  EXPECT_EQ(second[0].box, (Box{{2, 0}, {2, 2}}));
  EXPECT_EQ(second[1].box, (Box{{0, 2}, {2, 1}}));
  EXPECT_TRUE(second[2].is_whole());
  EXPECT_TRUE(second[3].is_whole());
  EXPECT_EQ((*checkpoint)->PartsOfRank(1)[3].box, (Box{{0}, {0}}));
}

TEST_F(DcpShardsTest, ReadsAnyGridInAnyPieces) {
  std::mt19937 random(3);
  const auto below = [&](int64_t n) { return std::uniform_int_distribution<int64_t>(0, n - 1)(random); };
  for (int round = 0; round < 100; ++round) {
    TensorSpec spec{"w", below(2) == 0 ? DType::kBF16 : DType::kU8, {}};
    for (int64_t d = 1 + below(4); d > 0; --d) spec.shape.push_back(1 + below(6));
    std::string whole;
    while (whole.size() < spec.ByteSize()) whole.push_back(static_cast<char>(below(256)));
    // A grid, as meshes make: each rank one cell.
    std::vector<Box> boxes = {WholeBox(spec.shape)};
    for (size_t d = 0; d < spec.shape.size(); ++d) {
      const uint64_t parts = 1 + static_cast<uint64_t>(below(3));
      std::vector<Box> next;
      for (const Box& box : boxes) {
        for (uint64_t part = 0; part < parts; ++part) next.push_back(refit::Cut(box, d, Split::kCeil, part, parts));
      }
      boxes = next;
    }
    if (boxes.size() < 2) continue;
    for (size_t i = 0; i < boxes.size(); ++i) {
      const TensorPart part{spec, boxes[i]};
      WriteShards(NameOfRank(static_cast<int>(i) + 1), {{part, Cut(whole, part)}});
    }
    const auto checkpoint = Checkpoint::Open(folder_);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    ASSERT_EQ((*checkpoint)->tensors()[0], spec);
    const uint64_t element = ElementSize(spec.dtype);
    for (uint64_t at = 0; at < whole.size();) {
      const uint64_t size =
          element * (1 + static_cast<uint64_t>(below(static_cast<int64_t>((whole.size() - at) / element))));
      std::string scratch(size, '?');
      auto* bytes = reinterpret_cast<std::byte*>(scratch.data());
      ASSERT_EQ(AsString((*checkpoint)->Read(0, at, size, {bytes, size})), whole.substr(at, size)) << spec.ToString();
      at += size;
    }
    for (size_t i = 0; i < boxes.size(); ++i) std::filesystem::remove(Path(NameOfRank(static_cast<int>(i) + 1)));
  }
}

TEST_F(DcpShardsTest, ARankMayHaveSeveralFiles) {
  WriteShards("shard-00001-model-00001-of-00002.safetensors", {{{{"a", DType::kU8, {2}}, {{0}, {1}}}, "1"}});
  WriteShards("shard-00001-model-00002-of-00002.safetensors", {{{{"b", DType::kU8, {2}}, {{0}, {1}}}, "2"}});
  WriteShards("shard-00002-model-00001-of-00002.safetensors", {{{{"a", DType::kU8, {2}}, {{1}, {1}}}, "3"}});
  WriteShards("shard-00002-model-00002-of-00002.safetensors", {{{{"b", DType::kU8, {2}}, {{1}, {1}}}, "4"}});
  const auto checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(ReadWhole(**checkpoint, 0), "13");
  EXPECT_EQ(ReadWhole(**checkpoint, 1), "24");
  EXPECT_EQ((*checkpoint)->PartsOfRank(2)[1].box, (Box{{1}, {1}}));
}

TEST_F(DcpShardsTest, EmptyShardsAreNothing) {
  WriteBytes(1, 0, "abcd");
  WriteBytes(2, 4, "");
  const auto checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(ReadWhole(**checkpoint, 0), "abcd");
}

TEST_F(DcpShardsTest, HolesAndOverlapsAreNamed) {
  WriteBytes(1, 0, "ab");
  WriteBytes(2, 3, "d");
  EXPECT_THAT(Refusal(), HasSubstr("tensor w U8 [4]: no shard has [2:3]"));
  WriteBytes(2, 1, "bcd");
  EXPECT_THAT(Refusal(),
              AllOf(HasSubstr("tensor w U8 [4]: shards overlap: "), HasSubstr("[1:4] of shard-00002-model")));
}

TEST_F(DcpShardsTest, TensorsThatDoNotFitAreNamed) {
  WriteBytes(1, 0, "ab");
  WriteShards(NameOfRank(2), {{{{"w", DType::kI8, {4}}, {{2}, {2}}}, "cd"}});
  EXPECT_THAT(Refusal(), AllOf(HasSubstr(NameOfRank(2)), HasSubstr("w I8 [2]: other ranks have w U8 [2]")));
  WriteShards(NameOfRank(2), {{{{"w", DType::kU8, {4, 1}}, {{2, 0}, {2, 1}}}, "cd"}});
  EXPECT_THAT(Refusal(), HasSubstr("other ranks have w U8 [2]"));
  WriteShards(NameOfRank(2), {{{{"w", DType::kU8, {4}}, {{2, 0}, {2}}}, "cd"}});
  EXPECT_THAT(Refusal(), HasSubstr("has offsets [2, 0]"));
  WriteBytes(2, std::numeric_limits<int64_t>::max(), "cd");
  EXPECT_THAT(Refusal(), HasSubstr("has offsets [9223372036854775807]"));
  WriteFile(NameOfRank(2), FileOf(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "c"));
  EXPECT_THAT(Refusal(), HasSubstr("has no DCP_SHARDING_INFO"));
}

TEST_F(DcpShardsTest, ExcludedTensorsNeedNotFit) {
  WriteShards(NameOfRank(1),
              {{{{"w", DType::kU8, {2}}, {{0}, {1}}}, "a"}, {{{"odd", DType::kU8, {9}}, {{0}, {1}}}, "o"}});
  WriteShards(NameOfRank(2),
              {{{{"w", DType::kU8, {2}}, {{1}, {1}}}, "b"}, {{{"odd", DType::kI8, {9}}, {{8}, {1}}}, "o"}});
  EXPECT_FALSE(Checkpoint::Open(folder_).ok());
  const auto checkpoint = Checkpoint::Open(folder_, {.excluded = [](absl::string_view name) { return name == "odd"; }});
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_EQ((*checkpoint)->tensors().size(), 1u);
  EXPECT_EQ(ReadWhole(**checkpoint, 0), "ab");
}

TEST_F(DcpShardsTest, ARankThatIsMissingIsNamed) {
  WriteBytes(1, 0, "ab");
  EXPECT_THAT(Refusal(), AllOf(HasSubstr("torch.distributed.checkpoint"), HasSubstr("--rank 0 --world 1")));
  EXPECT_TRUE(Checkpoint::Open(folder_, {.ranks = 1}).ok());
  EXPECT_THAT(std::string(Checkpoint::Open(folder_, {.ranks = 2}).status().message()), HasSubstr("ranks 2 of 2"));
  WriteBytes(4, 2, "cd");
  EXPECT_THAT(Refusal(), HasSubstr("ranks 2, 3 of 4"));
  EXPECT_THAT(std::string(Checkpoint::Open(folder_, {.ranks = 3}).status().message()), HasSubstr("expected 3 ranks"));
}

TEST_F(DcpShardsTest, AFileThatIsCutMeanwhileIsNoSignal) {
  const TensorSpec spec{"w", DType::kU8, {1 << 20}};
  const std::string half(1 << 19, 'x');
  WriteShards(NameOfRank(1), {{{spec, {{0}, {1 << 19}}}, half}});
  WriteShards(NameOfRank(2), {{{spec, {{1 << 19}, {1 << 19}}}, half}});
  const auto checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::filesystem::resize_file(Path(NameOfRank(2)), 4096);
  std::vector<std::byte> scratch(1 << 20);
  EXPECT_TRUE((*checkpoint)->Read(0, 0, scratch.size(), absl::MakeSpan(scratch)).empty());
  EXPECT_EQ((*checkpoint)->Read(0, 0, half.size(), absl::MakeSpan(scratch)).size(), half.size());
}

TEST_F(DcpShardsTest, WhereShardsAreWantedNothingElseCounts) {
  WriteFile("model.safetensors", FileOf("{}"));
  WriteFile("model.safetensors.index.json", R"({"weight_map":{}})");
  EXPECT_THAT(std::string(Checkpoint::Open(folder_, {.ranks = 2}).status().message()), HasSubstr("has no shards"));
  WriteBytes(1, 0, "ab");
  WriteBytes(2, 2, "cd");
  const auto checkpoint = Checkpoint::Open(folder_, {.ranks = 2});
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(ReadWhole(**checkpoint, 0), "abcd");
}

TEST_F(DcpShardsTest, OneRanksFileIsNoModel) {
  WriteBytes(1, 0, "ab");
  WriteBytes(2, 2, "cd");
  const absl::Status status = Checkpoint::Open(Path(NameOfRank(1))).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(NameOfRank(1)), HasSubstr("name the folder")));
}

TEST_F(DcpShardsTest, RefusesMalformedOffsets) {
  const struct {
    const char* json;
    const char* message;
  } cases[] = {
      {"", "no valid JSON"},
      {"[]", "expected an object, got an array"},
      {R"({"w":[0]})", "tensor \"w\": expected saved_offsets, an array of whole numbers, got an array"},
      {R"({"w":{}})", "tensor \"w\": saved_offsets are missing"},
      {R"({"w":{"saved_offsets":0}})", "got 0"},
      {R"({"w":{"saved_offsets":[-1]}})", "got -1"},
      {R"({"w":{"saved_offsets":[[0]]}})", "got an array"},
      {R"({"w":{"saved_offsets":[9223372036854775808]}})", "got 9223372036854775808"},
      {R"({"w":{"saved_offsets":[0],"saved_offsets":[1]}})", "saved_offsets is there twice"},
      {R"({"w":{"saved_offsets":[0]},"w":{"saved_offsets":[1]}})", "is there twice"},
      {R"({"w":{"saved_offsets":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}})", "more than 16 offsets"},
  };
  for (const auto& c : cases) {
    const auto offsets = ParseDcpOffsets(c.json);
    EXPECT_EQ(offsets.status().code(), absl::StatusCode::kInvalidArgument) << c.json;
    EXPECT_THAT(std::string(offsets.status().message()), HasSubstr(c.message));
  }
}

}  // namespace
}  // namespace refit

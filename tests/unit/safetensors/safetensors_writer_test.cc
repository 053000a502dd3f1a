#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <thread>

#include "common/safetensors/safetensors.h"
#include "test_files.h"

namespace refit {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

class SafetensorsWriterTest : public FolderTest {
 protected:
  size_t CountFiles() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }
};

const std::vector<TensorSpec> kTensors = {
    {"z", DType::kBF16, {2, 2}}, {"empty", DType::kF32, {0, 3}}, {"a", DType::kU8, {}}};

TEST_F(SafetensorsWriterTest, WritesExactlyTheFormat) {
  auto writer = SafetensorsWriter::Create(Path("f"), kTensors, {{"format", "pt"}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  // Any order, in pieces.
  EXPECT_TRUE((*writer)->WriteAt(2, 0, AsBytes("a")).ok());
  EXPECT_TRUE((*writer)->WriteAt(0, 5, AsBytes("567")).ok());
  EXPECT_TRUE((*writer)->WriteAt(1, 0, {}).ok());
  EXPECT_TRUE((*writer)->WriteAt(0, 0, AsBytes("01234")).ok());
  EXPECT_FALSE(std::filesystem::exists(Path("f")));
  ASSERT_TRUE((*writer)->Commit().ok());
  writer->reset();

  const std::string json =
      "{\"__metadata__\":{\"format\":\"pt\"},\"z\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[0,8]},"
      "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[8,8]},"
      "\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[8,9]}}";
  const size_t padded = (json.size() + 7) / 8 * 8;
  EXPECT_EQ(ReadFile(Path("f")), FileOf(json + std::string(padded - json.size(), ' '), "01234567a"));
  EXPECT_EQ(CountFiles(), 1U);

  auto file = SafetensorsFile::Open(Path("f"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors(), kTensors);
  EXPECT_EQ(AsString((*file)->data(0)), "01234567");
  EXPECT_THAT((*file)->metadata(), ElementsAre(Pair("format", "pt")));
}

TEST_F(SafetensorsWriterTest, WritesNothingAtAll) {
  auto writer = SafetensorsWriter::Create(Path("f"), {});
  ASSERT_TRUE(writer.ok() && (*writer)->Commit().ok());
  EXPECT_EQ(ReadFile(Path("f")), FileOf("{}      "));
}

TEST_F(SafetensorsWriterTest, EscapesNames) {
  auto writer = SafetensorsWriter::Create(Path("f"), {{"a\"\\\xC3\xA4", DType::kU8, {0}}}, {{"line\n", "\x01"}});
  ASSERT_TRUE(writer.ok() && (*writer)->Commit().ok());
  auto file = SafetensorsFile::Open(Path("f"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors()[0].name, "a\"\\\xC3\xA4");
  EXPECT_THAT((*file)->metadata(), ElementsAre(Pair("line\n", "\x01")));
}

TEST_F(SafetensorsWriterTest, GivesThePermissionsOfAnyNewFile) {
  auto writer = SafetensorsWriter::Create(Path("f"), {});
  ASSERT_TRUE(writer.ok() && (*writer)->Commit().ok());
  struct stat ours = {};
  struct stat other = {};
  ASSERT_EQ(stat(Path("f").c_str(), &ours), 0);
  ASSERT_EQ(stat(WriteFile("g", "").c_str(), &other), 0);
  EXPECT_EQ(ours.st_mode, other.st_mode);
}

TEST_F(SafetensorsWriterTest, LeavesNothingUnlessCommitted) {
  WriteFile("f", "old");
  {
    auto writer = SafetensorsWriter::Create(Path("f"), kTensors);
    ASSERT_TRUE(writer.ok());
    EXPECT_TRUE((*writer)->WriteAt(0, 0, AsBytes("01234567")).ok());
    EXPECT_EQ(CountFiles(), 2U);
    const absl::Status status = (*writer)->Commit();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("tensor a U8 []: expected 1 bytes, 0 came"));
  }
  EXPECT_EQ(CountFiles(), 1U);
  EXPECT_EQ(ReadFile(Path("f")), "old");
}

TEST_F(SafetensorsWriterTest, ReplacesAnOldFile) {
  WriteFile("f", "old");
  auto writer = SafetensorsWriter::Create(Path("f"), {});
  ASSERT_TRUE(writer.ok() && (*writer)->Commit().ok());
  EXPECT_NE(ReadFile(Path("f")), "old");
}

TEST_F(SafetensorsWriterTest, RefusesBytesBeyondATensor) {
  auto writer = SafetensorsWriter::Create(Path("f"), kTensors);
  ASSERT_TRUE(writer.ok());
  const std::pair<size_t, uint64_t> places[] = {{0, 7}, {0, 9}, {0, ~uint64_t{0}}, {1, 0}, {3, 0}};
  for (const auto& [index, offset] : places) {
    EXPECT_EQ((*writer)->WriteAt(index, offset, AsBytes("xx")).code(), absl::StatusCode::kOutOfRange);
  }
}

TEST_F(SafetensorsWriterTest, IsDoneAfterCommit) {
  auto writer = SafetensorsWriter::Create(Path("f"), {{"a", DType::kU8, {0}}});
  ASSERT_TRUE(writer.ok() && (*writer)->Commit().ok());
  EXPECT_EQ((*writer)->WriteAt(0, 0, {}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ((*writer)->Commit().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SafetensorsWriterTest, RefusesWhatNoReaderWouldTake) {
  const std::vector<TensorSpec> cases[] = {
      {{"", DType::kU8, {1}}},
      {{"\xFF", DType::kU8, {1}}},
      {{"a", DType::kU8, {-1}}},
      {{"__metadata__", DType::kU8, {1}}},
      {{"a", DType::kU8, {1}}, {"a", DType::kU8, {1}}},
      {{"a", DType::kU8, {int64_t{1} << 62}}, {"b", DType::kU8, {int64_t{1} << 62}}},
  };
  for (const auto& tensors : cases) {
    EXPECT_EQ(SafetensorsWriter::Create(Path("f"), tensors).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(SafetensorsWriter::Create(Path("f"), {}, {{"k", "\xFF"}}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SafetensorsWriter::Create(Path("f"), {}, {{"k", std::string(101 << 20, 'x')}}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CountFiles(), 0U);
}

TEST_F(SafetensorsWriterTest, RefusesPathsThatCannotBe) {
  EXPECT_EQ(SafetensorsWriter::Create(folder_, {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SafetensorsWriter::Create(folder_.string() + "/", {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SafetensorsWriter::Create("", {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SafetensorsWriter::Create(Path("missing/f"), {}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsWriter::Create(WriteFile("file", "") + "/f", {}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsWriterTest, SaysWhenTheNameWasTakenMeanwhile) {
  auto writer = SafetensorsWriter::Create(Path("f"), {});
  ASSERT_TRUE(writer.ok());
  std::filesystem::create_directories(Path("f/below"));
  EXPECT_FALSE((*writer)->Commit().ok());
  writer->reset();
  EXPECT_EQ(CountFiles(), 1U);
}

TEST_F(SafetensorsWriterTest, SaysWhenTheDiskIsFull) {
  // A limit on the size of files stands for a full disk.
  auto writer = SafetensorsWriter::Create(Path("f"), {{"a", DType::kU8, {1 << 20}}});
  ASSERT_TRUE(writer.ok());
  struct rlimit old = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  auto* handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small = {4096, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = (*writer)->WriteAt(0, 0, AsBytes(std::string(1 << 20, 'x')));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

TEST_F(SafetensorsWriterTest, TakesConcurrentWrites) {
  constexpr int kThreads = 4;
  constexpr int kPieces = 64;
  const std::string piece(1000, 'p');
  auto writer = SafetensorsWriter::Create(Path("f"), {{"a", DType::kU8, {kThreads * kPieces * 1000}}});
  ASSERT_TRUE(writer.ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPieces; ++i) {
        EXPECT_TRUE((*writer)->WriteAt(0, static_cast<uint64_t>(t * kPieces + i) * 1000, AsBytes(piece)).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE((*writer)->Commit().ok());
  EXPECT_EQ(AsString(SafetensorsFile::Open(Path("f")).value()->data(0)), std::string(kThreads * kPieces * 1000, 'p'));
}

}  // namespace
}  // namespace refit

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <climits>
#include <csignal>
#include <thread>

#include "absl/strings/match.h"
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
    const absl::Status status = (*writer)->Commit();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("tensor a U8 []: expected 1 bytes, 0 came"));
  }
  EXPECT_EQ(CountFiles(), 1U);
  EXPECT_EQ(ReadFile(Path("f")), "old");
}

TEST_F(SafetensorsWriterTest, AlignsByElementSizeAndNamesInOrder) {
  const std::vector<TensorSpec> tensors = {
      {"u8", DType::kU8, {3}}, {"f64", DType::kF64, {2}}, {"bf16", DType::kBF16, {1}}, {"f32", DType::kF32, {1}}};
  auto writer = SafetensorsWriter::Create(Path("f"), tensors);
  ASSERT_TRUE(writer.ok()) << writer.status();
  const std::string bytes[] = {"abc", "0123456789abcdef", "xy", "wxyz"};
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE((*writer)->WriteAt(i, 0, AsBytes(bytes[i])).ok());
  ASSERT_TRUE((*writer)->Commit().ok());
  const std::string content = ReadFile(Path("f"));
  EXPECT_LT(content.find("\"u8\""), content.find("\"f64\""));
  EXPECT_LT(content.find("\"bf16\""), content.find("\"f32\""));
  auto file = SafetensorsFile::Open(Path("f"));
  ASSERT_TRUE(file.ok()) << file.status();
  for (size_t i = 0; i < 4; ++i) {
    const TensorSpec& spec = (*file)->tensors()[i];
    const auto* data = (*file)->data(i).data();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % ElementSize(spec.dtype), 0U) << spec.name;
    const auto given = std::find(tensors.begin(), tensors.end(), spec);
    ASSERT_NE(given, tensors.end());
    EXPECT_EQ(AsString((*file)->data(i)), bytes[given - tensors.begin()]);
    EXPECT_EQ((*file)->tensors()[(*file)->header_order()[i]], tensors[i]);
  }
}

TEST_F(SafetensorsWriterTest, FollowsLinks) {
  std::filesystem::create_directory(Path("d"));
  std::filesystem::create_symlink("d/real", Path("link"));  // to nothing yet
  for (int i = 0; i < 2; ++i) {
    auto writer = SafetensorsWriter::Create(Path("link"), {});
    ASSERT_TRUE(writer.ok() && (*writer)->Commit().ok()) << writer.status();
    EXPECT_TRUE(std::filesystem::is_symlink(Path("link")));
    EXPECT_EQ(ReadFile(Path("d/real")), FileOf("{}      "));
  }
  std::filesystem::create_symlink("circle", Path("circle"));
  EXPECT_EQ(SafetensorsWriter::Create(Path("circle"), {}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SafetensorsWriterTest, WritesThroughAPipeInOrder) {
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  const absl::Status alone = SafetensorsWriter::Create(Path("pipe"), {}).status();
  EXPECT_EQ(alone.code(), absl::StatusCode::kFailedPrecondition) << alone;
  EXPECT_THAT(std::string(alone.message()), HasSubstr("nobody reads it"));

  const int reader = open(Path("pipe").c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  auto writer = SafetensorsWriter::Create(Path("pipe"), {{"a", DType::kU8, {2}}, {"b", DType::kU8, {2}}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_TRUE((*writer)->WriteAt(1, 1, AsBytes("4")).ok());
  EXPECT_TRUE((*writer)->WriteAt(1, 0, AsBytes("3")).ok());
  EXPECT_TRUE((*writer)->WriteAt(0, 0, AsBytes("12")).ok());
  EXPECT_TRUE((*writer)->Commit().ok());
  writer->reset();
  std::string got(4096, '\0');
  got.resize(static_cast<size_t>(std::max<ssize_t>(0, read(reader, got.data(), got.size()))));
  EXPECT_EQ(got.substr(got.size() - 4), "1234");
  EXPECT_TRUE(std::filesystem::is_fifo(Path("pipe")));

  // Its reader goes: an error, and no signal.
  auto other = SafetensorsWriter::Create(Path("pipe"), {{"a", DType::kU8, {2}}});
  ASSERT_TRUE(other.ok());
  close(reader);
  EXPECT_FALSE((*other)->WriteAt(0, 0, AsBytes("12")).ok());
  EXPECT_TRUE(std::filesystem::is_fifo(Path("pipe")));
}

TEST_F(SafetensorsWriterTest, APipesLaterBytesAreNotAllKeptInMemory) {
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  std::filesystem::create_directory(Path("temporary"));
  setenv("TMPDIR", Path("temporary").c_str(), 1);
  std::string got;
  std::thread reader([&] { got = ReadFile(Path("pipe")); });
  std::string later(80 << 20, '\0');
  for (size_t i = 0; i < later.size(); ++i) later[i] = static_cast<char>(i / 4099);
  {
    const auto size = static_cast<int64_t>(later.size());
    absl::StatusOr<std::unique_ptr<SafetensorsWriter>> writer;
    do {  // until the reader has opened it
      writer = SafetensorsWriter::Create(Path("pipe"), {{"a", DType::kU8, {1}}, {"b", DType::kU8, {size}}});
    } while (!writer.ok());
    constexpr size_t kPiece = 5 << 20;
    for (size_t at = 0; at < later.size(); at += kPiece) {
      ASSERT_TRUE((*writer)->WriteAt(1, at, AsBytes(absl::string_view(later).substr(at, kPiece))).ok());
    }
    ASSERT_TRUE((*writer)->WriteAt(0, 0, AsBytes("1")).ok());
    ASSERT_TRUE((*writer)->Commit().ok());
  }
  reader.join();
  unsetenv("TMPDIR");
  ASSERT_GT(got.size(), later.size());
  EXPECT_EQ(got[got.size() - later.size() - 1], '1');
  EXPECT_TRUE(absl::EndsWith(got, later));
  EXPECT_TRUE(std::filesystem::is_empty(Path("temporary")));
}

TEST_F(SafetensorsWriterTest, SaysWhenADeviceTakesNothing) {
  // The real one is only written to; what would be done to a name is seen with the pipe above.
  EXPECT_EQ(SafetensorsWriter::Create("/dev/full", {}).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
}

TEST_F(SafetensorsWriterTest, RemovesWhatKilledWritersLeft) {
  char host[HOST_NAME_MAX + 1] = {};
  ASSERT_EQ(gethostname(host, sizeof host - 1), 0);
  const std::string left = std::string(".refit-") + host + "-1-1.tmp";
  const std::string used = std::string(".refit-") + host + "-1-2.tmp";
  WriteFile(left, "");
  WriteFile(used, "");
  WriteFile(".refit-elsewhere-1-1.tmp", "");
  WriteFile(".refit-elsewhere-1-2.tmp", "");
  const auto old = std::filesystem::file_time_type::clock::now() - std::chrono::hours(48);
  std::filesystem::last_write_time(Path(".refit-elsewhere-1-2.tmp"), old);
  const int lock = open(Path(used).c_str(), O_WRONLY);
  ASSERT_EQ(flock(lock, LOCK_EX), 0);
  ASSERT_TRUE(SafetensorsWriter::Create(Path("f"), {}).ok());
  close(lock);
  EXPECT_FALSE(std::filesystem::exists(Path(left)));
  EXPECT_TRUE(std::filesystem::exists(Path(used)));
  EXPECT_TRUE(std::filesystem::exists(Path(".refit-elsewhere-1-1.tmp")));
  EXPECT_FALSE(std::filesystem::exists(Path(".refit-elsewhere-1-2.tmp")));
}

TEST_F(SafetensorsWriterTest, CountsPackedTypesByTheirValues) {
  const std::vector<TensorSpec> packed = {{"a", DType::kF4Packed, {2, 3}}, {"b", DType::kF6E3M2Packed, {3}}};
  auto writer = SafetensorsWriter::Create(Path("f"), packed);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->WriteAt(0, 0, AsBytes("012345")).ok() && (*writer)->WriteAt(1, 0, AsBytes("678")).ok());
  ASSERT_TRUE((*writer)->Commit().ok());
  EXPECT_THAT(ReadFile(Path("f")), HasSubstr(R"("a":{"dtype":"F4","shape":[2,6],"data_offsets":[0,6]})"));
  EXPECT_THAT(ReadFile(Path("f")), HasSubstr(R"("b":{"dtype":"F6_E3M2","shape":[4],"data_offsets":[6,9]})"));
  EXPECT_EQ((*SafetensorsFile::Open(Path("f")))->tensors(), packed);

  const auto cut = SafetensorsWriter::Create(Path("f"), {{"part", DType::kF6E2M3Packed, {2, 4}}});
  EXPECT_EQ(cut.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(cut.status().message()), HasSubstr("part F6_E2M3_PACKED [2, 4]"));
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
  threads.reserve(kThreads);
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

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "common/safetensors/safetensors.h"
#include "test_files.h"
#include "test_paths.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

using SafetensorsFileTest = FolderTest;

std::string Tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

TEST_F(SafetensorsFileTest, ReadsTensorsInOrderOfTheirData) {
  const std::string header = "{" + Tensor("b", "U8", "[3]", "[4,7]") + "," + Tensor("empty", "F64", "[0,5]", "[4,4]") +
                             ",\"__metadata__\":{\"format\":\"pt\",\"k\":\"\"}," +
                             Tensor("a", "BF16", "[2,1]", "[0,4]") + "," + Tensor("scalar", "BOOL", "[]", "[7,8]") +
                             "}   ";
  auto file = SafetensorsFile::Open(WriteFile("f.safetensors", FileOf(header, "01234567")));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT((*file)->tensors(),
              ElementsAre(TensorSpec{"a", DType::kBF16, {2, 1}}, TensorSpec{"empty", DType::kF64, {0, 5}},
                          TensorSpec{"b", DType::kU8, {3}}, TensorSpec{"scalar", DType::kBool, {}}));
  EXPECT_EQ(AsString((*file)->data(0)), "0123");
  EXPECT_EQ(AsString((*file)->data(1)), "");
  EXPECT_EQ(AsString((*file)->data(2)), "456");
  EXPECT_EQ(AsString((*file)->data(3)), "7");
  EXPECT_THAT((*file)->metadata(), ElementsAre(Pair("format", "pt"), Pair("k", "")));
  EXPECT_EQ((*file)->path(), Path("f.safetensors"));
}

TEST_F(SafetensorsFileTest, ReadsEveryDType) {
  for (DType dtype : kAllDTypes) {
    if (PackedBits(dtype) != 0) continue;
    const size_t bytes = ElementSize(dtype);
    const std::string header =
        "{" + Tensor("t", std::string(Name(dtype)), "[1]", "[0," + std::to_string(bytes) + "]") + "}";
    auto file = SafetensorsFile::Open(WriteFile("f.safetensors", FileOf(header, std::string(bytes, 'x'))));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ((*file)->tensors()[0].dtype, dtype);
  }
}

// The format counts their values, we their bytes.
TEST_F(SafetensorsFileTest, ReadsPackedTypes) {
  const struct {
    const char* name;
    DType dtype;
    int64_t bytes;
  } cases[] = {{"F4", DType::kF4Packed, 4}, {"F6_E2M3", DType::kF6E2M3Packed, 6}, {"F6_E3M2", DType::kF6E3M2Packed, 6}};
  for (const auto& c : cases) {
    const std::string offsets = "[0," + std::to_string(2 * c.bytes) + "]";
    auto file = SafetensorsFile::Open(WriteFile(
        "f.safetensors", FileOf("{" + Tensor("t", c.name, "[2,8]", offsets) + "}", std::string(2 * c.bytes, 'x'))));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ((*file)->tensors()[0], (TensorSpec{"t", c.dtype, {2, c.bytes}}));
  }
  for (const char* shape : {"[8,3]", "[]", "[9223372036854775807]"}) {
    const auto file =
        SafetensorsFile::Open(WriteFile("f.safetensors", FileOf("{" + Tensor("t", "F6_E2M3", shape, "[0,18]") + "}")));
    EXPECT_THAT(std::string(file.status().message()), AllOf(HasSubstr("\"t\""), HasSubstr("whole number of bytes")));
  }
}

TEST_F(SafetensorsFileTest, ReadsAFileWithoutTensors) {
  auto file = SafetensorsFile::Open(WriteFile("f.safetensors", FileOf("{}")));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->tensors().empty());
}

TEST_F(SafetensorsFileTest, UnescapesNames) {
  auto file = SafetensorsFile::Open(
      WriteFile("f.safetensors", FileOf("{" + Tensor("\\u00e4.\\\"", "U8", "[0]", "[0,0]") + "}")));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors()[0].name, "\xC3\xA4.\"");
}

TEST_F(SafetensorsFileTest, ReadsRealFiles) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(REFIT_TEST_DATA "/golden")) {
    if (entry.path().extension() != ".safetensors") continue;
    ++files;
    auto file = SafetensorsFile::Open(entry.path());
    ASSERT_TRUE(file.ok()) << file.status();
    for (size_t i = 0; i < (*file)->tensors().size(); ++i) {
      EXPECT_EQ((*file)->data(i).size(), (*file)->tensors()[i].ByteSize());
    }
  }
  EXPECT_GT(files, 0);
}

TEST_F(SafetensorsFileTest, SaysWhatTheFileSystemSays) {
  EXPECT_EQ(SafetensorsFile::Open(Path("missing")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsFile::Open(WriteFile("file", "") + "/below").status().code(), absl::StatusCode::kNotFound);
  const absl::Status folder = SafetensorsFile::Open(folder_).status();
  EXPECT_EQ(folder.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(folder.message()), HasSubstr("folder"));
  EXPECT_EQ(SafetensorsFile::Open(Path(std::string(300, 'x'))).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(SafetensorsFile::Open(Path("pipe")).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SafetensorsFileTest, SaysWhenItMayNotRead) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read anything";
  const std::string path = WriteFile("secret", FileOf("{}"));
  chmod(path.c_str(), 0);
  EXPECT_EQ(SafetensorsFile::Open(path).status().code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(SafetensorsFileTest, RefusesAFileTruncatedAnywhere) {
  const std::string whole = FileOf("{" + Tensor("weight", "F32", "[2]", "[0,8]") + "}", "01234567");
  for (size_t size = 0; size < whole.size(); ++size) {
    const absl::Status status = SafetensorsFile::Open(WriteFile("f", whole.substr(0, size))).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size;
    EXPECT_THAT(std::string(status.message()), HasSubstr(Path("f")));
  }
  EXPECT_TRUE(SafetensorsFile::Open(WriteFile("f", whole)).ok());
}

std::string Nested(size_t depth) { return std::string(depth, '['); }

TEST_F(SafetensorsFileTest, RefusesMalformedFiles) {
  const std::string good = Tensor("w", "U8", "[4]", "[0,4]");
  const std::string data = "0123";
  const auto header = [&](const std::string& members) { return FileOf("{" + members + "}", data); };
  const auto tensor = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return header(Tensor("w", dtype, shape, offsets));
  };
  const struct {
    const char* what;
    std::string content;
    const char* message;
  } cases[] = {
      {"empty", "", "the file has 0"},
      {"header longer than the file", LengthOf(100) + "{}", "expected a header of 100 bytes"},
      {"header of 2 GB", LengthOf(uint64_t{2} << 30) + "{}", "at most 104857600 bytes, got one of 2147483648"},
      {"header of 2^64-1 bytes", LengthOf(~uint64_t{0}) + "{}", "18446744073709551615"},
      {"no header", LengthOf(0), "begin with {"},
      {"header shorter than its JSON", LengthOf(5) + "{" + good + "}" + data, "no valid JSON"},
      {"header that reaches into the data", LengthOf(good.size() + 4) + "{" + good + "}" + data, "no valid JSON"},
      {"byte order mark", FileOf("\xEF\xBB\xBF{}"), "begin with {"},
      {"array", FileOf("[]"), "begin with {"},
      {"no JSON", FileOf("{nonsense}"), "no valid JSON"},
      {"trailing comma", header(good + ","), "no valid JSON"},
      {"two documents", FileOf("{}{}"), "no valid JSON"},
      {"NUL padding", FileOf(std::string("{}\0\0", 4)), "no valid JSON"},
      {"name of invalid UTF-8", header(Tensor("\xFF", "U8", "[4]", "[0,4]")), "UTF-8"},
      {"lone surrogate", header(Tensor("\\ud800", "U8", "[4]", "[0,4]")), "no valid JSON"},
      {"name with a control character", header(Tensor("a\\u0007", "U8", "[4]", "[0,4]")), "control character"},
      {"empty name", header(Tensor("", "U8", "[4]", "[0,4]")), "empty name"},
      {"huge name", header(Tensor(std::string(5000, 'n'), "U8", "[4]", "[0,4]")), "5000 bytes"},
      {"name twice, the last beside the data", header(good + "," + Tensor("w", "U8", "[2]", "[2,4]")), "leaves a hole"},
      {"tensor that is a string", header("\"w\":\"x\""), "\"w\": expected an object, got \"x\""},
      {"tensor that is null", header("\"w\":null"), "expected an object, got null"},
      {"tensor that is an array", header("\"w\":[1]"), "expected an object, got an array"},
      {"tensor without dtype", header("\"w\":{\"shape\":[4],\"data_offsets\":[0,4]}"), "dtype is missing"},
      {"tensor without shape", header("\"w\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}"), "shape is missing"},
      {"tensor without offsets", header("\"w\":{\"dtype\":\"U8\",\"shape\":[4]}"), "data_offsets is missing"},
      {"empty tensor object", header("\"w\":{}"), "dtype is missing"},
      {"unknown key instead", header("\"w\":{\"strides\":[1]}"), "dtype is missing"},
      {"unknown key, a million deep", header("\"w\":{\"x\":" + Nested(1'000'000)), "nested too deep"},
      {"key twice", header("\"w\":{\"shape\":[4],\"shape\":[4]}"), "shape: is there twice"},
      {"unknown dtype", tensor("F128", "[4]", "[0,4]"), "unknown dtype \"F128\"; known are F64, F32"},
      {"dtype in lower case", tensor("u8", "[4]", "[0,4]"), "unknown dtype \"u8\"; known are F64"},
      {"dtype that is a number", header("\"w\":{\"dtype\":3}"), "dtype: expected a string, got 3"},
      {"dtype that is an array", header("\"w\":{\"dtype\":[]}"), "dtype: expected a string, got an array"},
      {"shape that is a string", header("\"w\":{\"shape\":\"4\"}"), "shape: expected an array of sizes, got \"4\""},
      {"shape that is an object", header("\"w\":{\"shape\":{}}"), "shape: expected an array of sizes, got an object"},
      {"negative size", tensor("U8", "[-4]", "[0,4]"), "\"w\": shape: expected whole numbers from 0 to 2^64-1, got -4"},
      {"fraction", tensor("U8", "[4.0]", "[0,4]"), "got the number 4.0"},
      {"size beyond 2^64", tensor("U8", "[99999999999999999999]", "[0,4]"), "got the number 99999999999999999999"},
      {"size beyond 2^63", tensor("U8", "[9223372036854775808]", "[0,4]"), "at most 2^63-1, got 9223372036854775808"},
      {"number beyond any double", tensor("U8", "[1e999999]", "[0,4]"), "no valid JSON"},
      {"number of 100 kB", tensor("U8", "[" + std::string(100000, '9') + "]", "[0,4]"), "JSON"},
      {"product that overflows", tensor("U8", "[4294967296,4294967296]", "[0,4]"), "more than 2^63-1"},
      {"overflow hidden by a zero", tensor("U8", "[0,4294967296,4294967296]", "[0,0]"), "more than 2^63-1"},
      {"bytes that overflow", tensor("F64", "[2305843009213693952]", "[0,4]"), "more than 2^63-1 bytes"},
      {"17 dimensions", tensor("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]"), "at most 16 numbers"},
      {"nested shape", tensor("U8", "[[4]]", "[0,4]"), "got an array"},
      {"boolean size", tensor("U8", "[true]", "[0,4]"), "got a boolean"},
      {"one offset", tensor("U8", "[4]", "[4]"), "data_offsets: expected 2 numbers, got 1"},
      {"three offsets", tensor("U8", "[4]", "[0,4,4]"), "data_offsets: expected 2 numbers, got more"},
      {"negative offset", tensor("U8", "[4]", "[-1,3]"), "data_offsets: expected whole numbers"},
      {"offset that is a string", tensor("U8", "[4]", "[\"0\",4]"), "got \"0\""},
      {"offsets backwards", tensor("U8", "[4]", "[4,0]"), "data_offsets run backwards: [4, 0]"},
      {"fewer bytes than the shape", tensor("U8", "[5]", "[0,4]"), "expected 5 bytes for w U8 [5], got 4"},
      {"more bytes than the shape", tensor("U8", "[3]", "[0,4]"), "expected 3 bytes for w U8 [3], got 4"},
      {"bytes of another dtype", tensor("F32", "[4]", "[0,4]"), "expected 16 bytes"},
      {"data beyond the file", tensor("U8", "[5]", "[0,5]"), "up to byte 5, but the file is truncated after 4"},
      {"offsets near 2^64", tensor("U8", "[1]", "[18446744073709551614,18446744073709551615]"), "leaves a hole"},
      {"hole before", tensor("U8", "[3]", "[1,4]"), "expected data from byte 0, got 1, which leaves a hole"},
      {"hole between", header(Tensor("a", "U8", "[1]", "[0,1]") + "," + Tensor("b", "U8", "[2]", "[2,4]")),
       "\"b\": expected data from byte 1, got 2, which leaves a hole"},
      {"overlap", header(Tensor("a", "U8", "[3]", "[0,3]") + "," + Tensor("b", "U8", "[2]", "[2,4]")),
       "\"b\": expected data from byte 3, got 2, which overlaps another tensor"},
      {"same data twice", header(Tensor("a", "U8", "[4]", "[0,4]") + "," + good), "overlaps"},
      {"empty tensor within another", header(good + "," + Tensor("e", "U8", "[0]", "[2,2]")), "overlaps"},
      {"data of no tensor", FileOf("{" + good + "}", data + "4"), "expected 4 bytes of data, got 5"},
      {"data without tensors", FileOf("{}", data), "expected 0 bytes of data, got 4"},
      {"metadata that is a string", header("\"__metadata__\":\"x\"," + good), "__metadata__: expected an object"},
      {"metadata of a number", header("\"__metadata__\":{\"a\":1}," + good), "key \"a\": expected a string, got 1"},
      {"metadata of an object", header("\"__metadata__\":{\"a\":{}}," + good), "expected a string, got an object"},
      {"metadata of an array", header("\"__metadata__\":{\"a\":[]}," + good), "expected a string, got an array"},
      {"metadata twice", header("\"__metadata__\":{},\"__metadata__\":{}," + good), "has __metadata__ twice"},
      {"arrays, a million deep", header("\"w\":" + Nested(1'000'000)), "expected an object, got an array"},
      {"shape, a million deep", header("\"w\":{\"shape\":" + Nested(1'000'000)), "got an array"},
  };
  EXPECT_TRUE(SafetensorsFile::Open(WriteFile("good", header(good))).ok());
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    const absl::Status status = SafetensorsFile::Open(WriteFile("bad", c.content)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(Path("bad")), HasSubstr(c.message)));
    EXPECT_LT(status.message().size(), 1000U);
  }
}

// What the reference implementation reads, however odd.
TEST_F(SafetensorsFileTest, ReadsOddHeaders) {
  const std::string good = Tensor("w", "U8", "[4]", "[0,4]");
  const std::string headers[] = {
      " \t\r\n{" + good + "} \n",
      "{" + good + "," + good + "}",
      "{" + Tensor("w", "F32", "[9]", "[7,8]") + "," + good + "}",
      R"({"__metadata__":null,)" + good + "}",
      R"({"__metadata__":{"a":"x","a":"y"},)" + good + "}",
      R"({"w":{"x":[{"y":[null,true,-1,1,1.5,"z",{}]}],"dtype":"U8","y":-0.0,"shape":[4],"data_offsets":[0,4],"z":null}})",
      R"({"w":{"x":)" + Nested(125) + std::string(125, ']') + R"(,"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
  };
  for (const std::string& header : headers) {
    auto file = SafetensorsFile::Open(WriteFile("f", FileOf(header, "0123")));
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_EQ((*file)->tensors(), std::vector<TensorSpec>({{"w", DType::kU8, {4}}})) << header;
    EXPECT_EQ(AsString((*file)->data(0)), "0123");
    if (!(*file)->metadata().empty()) {
      EXPECT_EQ((*file)->metadata().at("a"), "y");
    }
  }
}

TEST_F(SafetensorsFileTest, LeavesOutUnwantedTensorsThatItCannotRepresent) {
  const std::string path =
      WriteFile("f", FileOf("{" + Tensor("odd", "F9_E5", "[3]", "[0,3]") + "," + Tensor("w", "U8", "[1]", "[3,4]") +
                                "," + Tensor("a\\u0007", "U8", "[1]", "[4,5]") + "," +
                                Tensor("deep", "U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[5,6]") + "," +
                                Tensor("fine", "U8", "[1]", "[6,7]") + "}",
                            "0123456"));
  EXPECT_FALSE(SafetensorsFile::Open(path).ok());
  auto file = SafetensorsFile::Open(path, [](absl::string_view name) { return name != "w"; });
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT((*file)->left_out(), testing::ElementsAre("odd", "a\x07", "deep"));
  ASSERT_EQ((*file)->tensors().size(), 2u);
  EXPECT_EQ(AsString((*file)->data(0)), "3");
  EXPECT_EQ(AsString((*file)->data(1)), "6");
  // What is wrong with the file is no matter of a tensor.
  const std::string hole = WriteFile("g", FileOf("{" + Tensor("odd", "F9_E5", "[3]", "[1,4]") + "}", "0123"));
  EXPECT_FALSE(SafetensorsFile::Open(hole, [](absl::string_view) { return true; }).ok());
}

TEST_F(SafetensorsFileTest, RefusesTooMuchMetadata) {
  std::string members;
  for (int i = 0; i <= 100'000; ++i) members += (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":\"\"";
  const absl::Status status =
      SafetensorsFile::Open(WriteFile("f", FileOf("{\"__metadata__\":{" + members + "}}"))).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("more than 100000 entries"));
}

}  // namespace
}  // namespace refit

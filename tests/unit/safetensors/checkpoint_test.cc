#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "common/safetensors/safetensors.h"
#include "test_files.h"

namespace refit {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CheckpointTest : public FolderTest {
 protected:
  // A file of one-byte tensors of these names; each byte is the last character of the name.
  std::string WriteShard(const std::string& name, const std::vector<std::string>& tensors) const {
    std::string members;
    std::string data;
    for (const std::string& tensor : tensors) {
      const size_t begin = data.size();
      data += tensor.back();
      absl::StrAppend(&members, members.empty() ? "\"" : ",\"", tensor,
                      R"(":{"dtype":"U8","shape":[1],"data_offsets":[)", begin, ",", data.size(), "]}");
    }
    return WriteFile(name, FileOf("{" + members + "}", data));
  }

  void WriteIndex(const std::string& json) const { WriteFile("model.safetensors.index.json", json); }

  absl::Status OpenIndex(const std::string& json) const {
    WriteIndex(json);
    return Checkpoint::Open(folder_).status();
  }
};

std::vector<std::string> Names(const Checkpoint& checkpoint) {
  std::vector<std::string> names;
  for (const TensorSpec& spec : checkpoint.tensors()) names.push_back(spec.name);
  return names;
}

TEST_F(CheckpointTest, OpensOneFile) {
  auto checkpoint = Checkpoint::Open(WriteShard("f.safetensors", {"b", "a"}));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(Names(**checkpoint), ElementsAre("b", "a"));
  EXPECT_EQ(AsString((*checkpoint)->data(1)), "a");
}

TEST_F(CheckpointTest, OpensAFolderWithOneFile) {
  WriteShard("any.safetensors", {"a"});
  WriteFile("config.json", "{}");
  auto checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(Names(**checkpoint), ElementsAre("a"));
}

TEST_F(CheckpointTest, OpensAShardedFolder) {
  WriteShard("model-00002.safetensors", {"c"});
  WriteShard("model-00001.safetensors", {"b", "a"});
  WriteShard("unrelated.safetensors", {"x"});
  WriteIndex(R"({"metadata":{"total_size":3,"nested":[[{"weight_map":{"x":-1.5}}],true,null,"s",-1]},
                 "weight_map":{"a":"model-00001.safetensors","c":"model-00002.safetensors",
                               "b":"model-00001.safetensors"},"version":1.5})");
  auto checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(Names(**checkpoint), ElementsAre("b", "a", "c"));
  EXPECT_EQ(AsString((*checkpoint)->data(0)), "b");
  EXPECT_EQ(AsString((*checkpoint)->data(1)), "a");
  EXPECT_EQ(AsString((*checkpoint)->data(2)), "c");
}

TEST_F(CheckpointTest, RefusesFoldersWithoutOneClearAnswer) {
  EXPECT_EQ(Checkpoint::Open(folder_).status().code(), absl::StatusCode::kInvalidArgument);
  WriteShard("a.safetensors", {"a"});
  WriteShard("b.safetensors", {"b"});
  const absl::Status status = Checkpoint::Open(folder_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("got 2"));
  EXPECT_EQ(Checkpoint::Open(Path("missing")).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CheckpointTest, RefusesFilesThatAreMissingOrBad) {
  const std::string index = R"({"weight_map":{"a":"f.safetensors"}})";
  EXPECT_EQ(OpenIndex(index).code(), absl::StatusCode::kNotFound);
  WriteFile("f.safetensors", "short");
  EXPECT_EQ(OpenIndex(index).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CheckpointTest, RefusesAnIndexThatNamesWhatIsMissing) {
  WriteShard("f.safetensors", {"a", "b"});
  const absl::Status missing =
      OpenIndex(R"({"weight_map":{"a":"f.safetensors","b":"f.safetensors","c":"f.safetensors"}})");
  EXPECT_EQ(missing.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("\"c\" is missing"));
}

TEST_F(CheckpointTest, LeavesOutWhatTheIndexDoesNotName) {
  WriteShard("f.safetensors", {"a", "b", "c"});
  WriteShard("g.safetensors", {"d", "a"});
  WriteIndex(R"({"weight_map":{"b":"f.safetensors","d":"g.safetensors"}})");
  auto checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(Names(**checkpoint), ElementsAre("b", "d"));
  EXPECT_EQ(AsString((*checkpoint)->data(0)), "b");
  EXPECT_THAT((*checkpoint)->note(), HasSubstr(": 3 tensors of its files left out"));
  // One that nobody could read is counted, too.
  WriteFile("f.safetensors", FileOf(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
                                        "odd":{"dtype":"F9_E5","shape":[1],"data_offsets":[1,2]}})",
                                    "b?"));
  checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->note(), HasSubstr(": 2 tensors of its files left out"));
}

TEST_F(CheckpointTest, ExcludedTensorsFailNothing) {
  WriteShard("f.safetensors", {"a"});
  WriteFile("g.safetensors", FileOf(R"({"odd":{"dtype":"F9_E5","shape":[1],"data_offsets":[0,1]}})", "?"));
  WriteIndex(R"({"weight_map":{"a":"f.safetensors","odd1":"f.safetensors","odd2":"none.safetensors",
                               "odd":"g.safetensors"}})");
  const CheckpointOptions options{.excluded = [](absl::string_view name) { return name.substr(0, 3) == "odd"; }};
  EXPECT_FALSE(Checkpoint::Open(folder_).ok());
  auto checkpoint = Checkpoint::Open(folder_, options);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT(Names(**checkpoint), ElementsAre("a"));
  EXPECT_EQ((*checkpoint)->note(), "");
  EXPECT_TRUE(Checkpoint::Open(Path("g.safetensors"), options).ok());
}

TEST_F(CheckpointTest, RefusesMalformedIndexes) {
  WriteShard("f.safetensors", {"a"});
  ASSERT_TRUE(OpenIndex(R"({"weight_map":{"a":"f.safetensors"}})").ok());
  const struct {
    std::string json;
    const char* message;
  } cases[] = {
      {"", "no valid JSON"},
      {"{", "no valid JSON"},
      {"[]", "expected an object, got an array"},
      {"1", "expected an object, got 1"},
      {"{}", "has no weight_map"},
      {R"({"weight_map":null})", "weight_map: expected an object, got null"},
      {R"({"weight_map":-1})", "weight_map: expected an object, got -1"},
      {R"({"weight_map":true})", "weight_map: expected an object, got a boolean"},
      {R"({"weight_map":1.5})", "weight_map: expected an object, got the number 1.5"},
      {R"({"weight_map":["a"]})", "weight_map: expected an object, got an array"},
      {R"({"weight_map":"a"})", "weight_map: expected an object, got \"a\""},
      {R"({"weight_map":{"a":1}})", "\"a\": expected the name of a file, got 1"},
      {R"({"weight_map":{"a":{}}})", "\"a\": expected the name of a file, got an object"},
      {R"({"weight_map":{"a":"f.safetensors","a":"f.safetensors"}})", "tensor \"a\" twice"},
      {R"({"weight_map":{"a":"f.safetensors","a":"g.safetensors"}})", "tensor \"a\" twice"},
      {R"({"weight_map":{"a":"f.safetensors"},"weight_map":{}})", "weight_map twice"},
      {R"({"weight_map":{"a":"../f.safetensors"}})", "same folder, got \"../f.safetensors\""},
      {R"({"weight_map":{"a":"/etc/passwd"}})", "same folder"},
      {R"({"weight_map":{"a":".."}})", "same folder"},
      {R"({"weight_map":{"a":"."}})", "same folder"},
      {R"({"weight_map":{"a":""}})", "same folder"},
      {R"({"weight_map":{"a":"f.safetensors\u0000x"}})", "same folder"},
      {"{\"weight_map\":" + std::string(1'000'000, '['), "got an array"},
      {"{\"x\":" + std::string(1'000'000, '['), "no valid JSON"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.json.substr(0, 80));
    const absl::Status status = OpenIndex(c.json);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
    EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors.index.json"));
  }
}

TEST_F(CheckpointTest, RefusesAnIndexThatIsTooLong) {
  WriteIndex("");
  std::filesystem::resize_file(Path("model.safetensors.index.json"), SafetensorsFile::kMaxHeaderBytes + 1);
  EXPECT_EQ(Checkpoint::Open(folder_).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CheckpointTest, TakesWholeTensorsThatTorchCheckpointSaved) {
  const auto write = [&](const std::string& offset) {
    WriteFile("model-00001-of-00001.safetensors",
              FileOf(R"({"__metadata__":{"DCP_SHARDING_INFO":"{\"w\": {\"saved_offsets\": [)" + offset +
                         R"(]}}","format":"pt"},"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                     "ab"));
  };
  WriteIndex(R"({"weight_map": {"w": "model-00001-of-00001.safetensors"}})");
  write("0");
  EXPECT_TRUE(Checkpoint::Open(folder_).ok()) << Checkpoint::Open(folder_).status();
  write("2");
  EXPECT_FALSE(Checkpoint::Open(folder_).ok());
}

}  // namespace
}  // namespace refit

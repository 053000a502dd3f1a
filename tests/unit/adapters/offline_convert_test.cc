#include "common/adapters/offline_convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/safetensors/safetensors.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

class OfflineConvert : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              ("offline_convert_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Path(const char* name) const { return (folder_ / name).string(); }

  // F32 elements 0, 1, 2, ... in each tensor.
  void Write(const std::string& path, const std::vector<TensorSpec>& specs) {
    const auto writer = SafetensorsWriter::Create(path, specs).value();
    for (size_t i = 0; i < specs.size(); ++i) {
      std::vector<float> values(specs[i].ByteSize() / 4);
      for (size_t k = 0; k < values.size(); ++k) values[k] = static_cast<float>(k);
      const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(values.data()), values.size() * 4);
      ASSERT_TRUE(writer->WriteAt(i, 0, bytes).ok());
    }
    ASSERT_TRUE(writer->Commit().ok());
  }

  void ExpectNothingWasWritten(const char* input) const {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
      EXPECT_EQ(entry.path().filename(), input);
    }
  }

  fs::path folder_;
};

OfflineConvertOptions Options(OfflineConvertOptions::Mode mode) {
  OfflineConvertOptions options;
  options.mode = mode;
  options.config.n_routed_experts = 2;
  return options;
}

const TensorSpec kDown = {"layers.0.moe.experts.down_projs", DType::kF32, {2, 2, 3}};

TEST_F(OfflineConvert, WritesWhatThePlanSaysInEmissionOrder) {
  Write(Path("in"), {{"b", DType::kF32, {}}, kDown, {"a", DType::kF32, {0, 3}}});
  ASSERT_EQ(ConvertFile(Options(OfflineConvertOptions::Mode::kPerTensor), Path("in"), Path("out")).status(),
            absl::OkStatus());
  const auto out = SafetensorsFile::Open(Path("out")).value();
  const std::vector<TensorSpec> expected = {{"b", DType::kF32, {}},
                                            {"layers.0.experts.down_proj", DType::kF32, {2, 3, 2}},
                                            {"layers.0.router.per_expert_scale", DType::kF32, {2}},
                                            {"a", DType::kF32, {0, 3}}};
  EXPECT_EQ(out->tensors(), expected);
  std::vector<float> transposed(12);
  ASSERT_EQ(out->data(1).size(), transposed.size() * sizeof(float));
  std::memcpy(transposed.data(), out->data(1).data(), out->data(1).size());
  EXPECT_EQ(transposed, std::vector<float>({0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11}));
}

TEST_F(OfflineConvert, CastsOnTheWayIfAskedTo) {
  Write(Path("in"), {kDown});
  OfflineConvertOptions options = Options(OfflineConvertOptions::Mode::kPerTensor);
  options.cast = DType::kBF16;
  ASSERT_EQ(ConvertFile(options, Path("in"), Path("out")).status(), absl::OkStatus());
  const auto out = SafetensorsFile::Open(Path("out")).value();
  for (const TensorSpec& spec : out->tensors()) {
    EXPECT_EQ(spec.dtype, DType::kBF16);
  }
}

TEST_F(OfflineConvert, TheAdaptersDTypeCastsNothingPerTensor) {
  Write(Path("in"), {kDown});
  OfflineConvertOptions options = Options(OfflineConvertOptions::Mode::kPerTensor);
  options.dtype = DType::kBF16;
  ASSERT_EQ(ConvertFile(options, Path("in"), Path("out")).status(), absl::OkStatus());
  EXPECT_EQ(SafetensorsFile::Open(Path("out")).value()->tensors()[1].dtype, DType::kF32);
}

TEST_F(OfflineConvert, ReadsAFolder) {
  fs::create_directories(folder_ / "in");
  Write(Path("in/model.safetensors"), {kDown});
  ASSERT_EQ(ConvertFile(Options(OfflineConvertOptions::Mode::kStateDict), Path("in"), Path("out")).status(),
            absl::OkStatus());
  EXPECT_EQ(SafetensorsFile::Open(Path("out")).value()->tensors()[0].name, "language_model.layers.0.experts.down_proj");
}

TEST_F(OfflineConvert, ReplacesItsOwnInput) {
  Write(Path("in"), {kDown});
  ASSERT_EQ(ConvertFile(Options(OfflineConvertOptions::Mode::kPerTensor), Path("in"), Path("in")).status(),
            absl::OkStatus());
  EXPECT_EQ(SafetensorsFile::Open(Path("in")).value()->tensors()[0].name, "layers.0.experts.down_proj");
}

TEST_F(OfflineConvert, ErrorsLeaveNoFile) {
  Write(Path("in"), {{"a", DType::kF32, {2}}, {"layers.0.moe.experts.down_projs", DType::kF32, {2}}});
  for (const auto mode : {OfflineConvertOptions::Mode::kPerTensor, OfflineConvertOptions::Mode::kStateDict}) {
    const absl::Status status = ConvertFile(Options(mode), Path("in"), Path("out")).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("layers.0.moe.experts.down_projs"), HasSubstr("[2]")));
  }
  OfflineConvertOptions options = Options(OfflineConvertOptions::Mode::kPerTensor);
  options.exclude_key_regex = "(?=a)";
  EXPECT_EQ(ConvertFile(options, Path("in"), Path("out")).status().code(), absl::StatusCode::kInvalidArgument);
  options = Options(OfflineConvertOptions::Mode::kNative);
  options.exclude_key_regex = "a";
  EXPECT_EQ(ConvertFile(options, Path("in"), Path("out")).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ConvertFile(options, Path("missing"), Path("out")).status().code(), absl::StatusCode::kNotFound);
  ExpectNothingWasWritten("in");
}

TEST_F(OfflineConvert, ErrorsLeaveAnOlderFileAsItWas) {
  std::ofstream(Path("out")) << "older";
  Write(Path("in"), {{"x.moe.experts.down_projs", DType::kF32, {2, 2}}});
  EXPECT_FALSE(ConvertFile(Options(OfflineConvertOptions::Mode::kPerTensor), Path("in"), Path("out")).ok());
  std::string content;
  std::ifstream(Path("out")) >> content;
  EXPECT_EQ(content, "older");
}

}  // namespace
}  // namespace refit

#include "client/native/native_source.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>
#include <set>

#include "common/safetensors/safetensors.h"
#include "common/tensor/kernels.h"

namespace refit {
namespace {

using Bytes = std::vector<std::byte>;

std::shared_ptr<const NativeSource> Open(const SyntheticOptions& options) {
  auto source = OpenSyntheticSource(options);
  EXPECT_TRUE(source.ok()) << source.status();
  return *std::move(source);
}

Bytes ReadAll(const NativeSource& source, size_t index) {
  Bytes bytes(source.tensors()[index].ByteSize());
  const auto view = source.Read(index, 0, bytes.size(), absl::MakeSpan(bytes));
  return Bytes(view.begin(), view.end());
}

uint64_t TotalBytes(const NativeSource& source) {
  uint64_t bytes = 0;
  for (const TensorSpec& spec : source.tensors()) bytes += spec.ByteSize();
  return bytes;
}

TEST(SyntheticSource, HasTheModelsTensors) {
  const auto large = Open({});
  EXPECT_EQ(large->tensors().size(), 984u);
  EXPECT_EQ(TotalBytes(*large), 53'088'259'740u);
  EXPECT_FALSE(large->is_resident());
  EXPECT_EQ(Open({.model = "gemma4_tiny"})->tensors().size(), 159u);
}

TEST(SyntheticSource, LayersLimitTheLanguageModelOnly) {
  const auto all = Open({.model = "gemma4_tiny"});
  for (const int layers : {0, 1, 2, 6}) {
    const auto some = Open({.model = "gemma4_tiny", .layers = layers});
    std::vector<TensorSpec> expected;
    for (const TensorSpec& spec : all->tensors()) {
      bool keep = true;
      for (int dropped = layers; dropped < 6; ++dropped) {
        if (spec.name.rfind("model.language_model.layers." + std::to_string(dropped) + ".", 0) == 0) keep = false;
      }
      if (keep) expected.push_back(spec);
    }
    EXPECT_EQ(some->tensors(), expected) << layers;
  }
  EXPECT_EQ(Open({.model = "gemma4_tiny", .layers = 6})->tensors(), all->tensors());
}

TEST(SyntheticSource, BadOptionsAreExplained) {
  const absl::Status unknown = OpenSyntheticSource({.model = "gemma5"}).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(unknown.message().find("gemma4_26b_a4b, gemma4_tiny"), std::string::npos) << unknown;
  const absl::Status deep = OpenSyntheticSource({.model = "gemma4_tiny", .layers = 7}).status();
  EXPECT_EQ(deep.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(deep.message().find("6 layers"), std::string::npos) << deep;
  EXPECT_EQ(OpenSyntheticSource({.dtype = DType::kI32}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(SyntheticSource, ValuesDoNotDependOnHowTheyAreRead) {
  std::mt19937 random(1);
  for (const DType dtype : {DType::kBF16, DType::kF32, DType::kF16, DType::kF64}) {
    const auto source = Open({.model = "gemma4_tiny", .layers = 1, .dtype = dtype});
    for (size_t index = 0; index < source->tensors().size(); ++index) {
      const Bytes whole = ReadAll(*source, index);
      const size_t element = ElementSize(dtype);
      Bytes pieces;
      Bytes scratch(3000);
      while (pieces.size() < whole.size()) {
        const size_t size = std::min(whole.size() - pieces.size(), element * (1 + random() % 300));
        const auto piece = source->Read(index, pieces.size(), size, absl::MakeSpan(scratch));
        ASSERT_EQ(piece.size(), size);
        pieces.insert(pieces.end(), piece.begin(), piece.end());
      }
      ASSERT_EQ(pieces, whole) << source->tensors()[index].ToString();
    }
  }
}

TEST(SyntheticSource, ValuesAreFiniteBelowOneAndOfBothSigns) {
  for (const DType dtype : {DType::kBF16, DType::kF32, DType::kF16, DType::kF64}) {
    const auto source = Open({.model = "gemma4_tiny", .layers = 1, .dtype = dtype});
    const Bytes bytes = ReadAll(*source, 2);
    ASSERT_GT(bytes.size(), 1000u);
    int64_t negative = 0;
    std::set<double> distinct;
    const auto elements = static_cast<int64_t>(bytes.size() / ElementSize(dtype));
    for (int64_t i = 0; i < elements; ++i) {
      const double value = ElementAsDouble(dtype, bytes.data(), i);
      ASSERT_TRUE(std::isfinite(value));
      ASSERT_LT(std::abs(value), 1.0);
      ASSERT_GE(std::abs(value), std::ldexp(1.0, -7));
      negative += value < 0 ? 1 : 0;
      distinct.insert(value);
    }
    EXPECT_GT(negative, elements / 3);
    EXPECT_LT(negative, elements * 2 / 3);
    EXPECT_GT(distinct.size(), 100u);
  }
}

TEST(SyntheticSource, ValuesDependOnSeedAndName) {
  const auto one = Open({.model = "gemma4_tiny", .layers = 1, .seed = 1});
  const auto same = Open({.model = "gemma4_tiny", .layers = 2, .seed = 1});
  const auto two = Open({.model = "gemma4_tiny", .layers = 1, .seed = 2});
  EXPECT_EQ(ReadAll(*one, 2), ReadAll(*same, 2));
  EXPECT_NE(ReadAll(*one, 2), ReadAll(*two, 2));
  EXPECT_NE(ReadAll(*one, 0), ReadAll(*one, 1));  // of one shape
  // The same on every machine, and in every later version of this software.
  const Bytes first = ReadAll(*one, 0);
  EXPECT_EQ(ElementAsDouble(DType::kBF16, first.data(), 0), -0.054931640625);
}

class CheckpointSourceTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directory(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  const std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("native_source_test." + std::to_string(::getpid()));
};

TEST_F(CheckpointSourceTest, GivesViewsOfTheFile) {
  const std::string path = folder_ / "model.safetensors";
  const std::vector<TensorSpec> specs = {{"a", DType::kI16, {3}}, {"b", DType::kU8, {0}}, {"c", DType::kF32, {2}}};
  auto writer = SafetensorsWriter::Create(path, specs);
  ASSERT_TRUE(writer.ok()) << writer.status();
  Bytes bytes(8);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  ASSERT_TRUE((*writer)->WriteAt(0, 0, absl::MakeConstSpan(bytes).subspan(0, 6)).ok());
  ASSERT_TRUE((*writer)->WriteAt(2, 0, bytes).ok());
  ASSERT_TRUE((*writer)->Commit().ok());

  const auto source = OpenCheckpointSource(path);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_TRUE((*source)->is_resident());
  ASSERT_EQ((*source)->tensors().size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const TensorSpec& spec = (*source)->tensors()[i];
    const auto expected = absl::MakeConstSpan(bytes).subspan(0, spec.ByteSize());
    EXPECT_EQ((*source)->Read(i, 0, spec.ByteSize(), {}), expected) << spec.ToString();
    if (expected.size() > 2) {
      EXPECT_EQ((*source)->Read(i, 2, 2, {}), expected.subspan(2, 2));
    }
  }
}

TEST_F(CheckpointSourceTest, AMissingFileIsNotFound) {
  EXPECT_EQ(OpenCheckpointSource(folder_ / "none.safetensors").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace refit

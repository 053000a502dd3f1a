#include "client/native/native_source.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <map>
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
  for (const double change : {-0.01, 1.01, std::nan("")}) {
    const absl::Status status = OpenSyntheticSource({.step = 1, .change = change}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << change;
    EXPECT_NE(status.message().find("0 to 1"), std::string::npos) << status;
  }
  const absl::Status late = OpenSyntheticSource({.step = kMostSyntheticSteps + 1}).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(late.message().find("1000"), std::string::npos) << late;
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

// The bit pattern of element i.
int64_t BitsOf(DType dtype, const Bytes& bytes, size_t i) {
  int64_t bits = 0;
  std::memcpy(&bits, bytes.data() + i * ElementSize(dtype), ElementSize(dtype));
  return bits;
}

constexpr DType kMoved[] = {DType::kBF16, DType::kF32, DType::kF16, DType::kF64};
// Two tensors of 32768 elements.
constexpr size_t kLarge = 30;
constexpr size_t kOtherLarge = 50;

SyntheticOptions AtStep(DType dtype, uint32_t step, double change) {
  return {.model = "gemma4_tiny", .layers = 1, .step = step, .change = change, .dtype = dtype};
}

TEST(SyntheticSteps, StepZeroIsTheSameWhateverTheChange) {
  for (const DType dtype : kMoved) {
    EXPECT_EQ(ReadAll(*Open(AtStep(dtype, 0, 1)), kLarge),
              ReadAll(*Open({.model = "gemma4_tiny", .layers = 1, .dtype = dtype}), kLarge));
  }
}

TEST(SyntheticSteps, EachStepMovesItsFractionByOneOrTwoUnits) {
  for (const DType dtype : kMoved) {
    for (const double change : {0.0, 0.01, 0.2, 1.0}) {
      for (const uint32_t step : {1, 2, 20}) {
        const Bytes before = ReadAll(*Open(AtStep(dtype, step - 1, change)), kLarge);
        const Bytes after = ReadAll(*Open(AtStep(dtype, step, change)), kLarge);
        const size_t elements = after.size() / ElementSize(dtype);
        std::map<int64_t, double> moves;
        for (size_t i = 0; i < elements; ++i) ++moves[BitsOf(dtype, after, i) - BitsOf(dtype, before, i)];
        const double changed = static_cast<double>(elements) - moves[0];
        const auto n = static_cast<double>(elements);
        // Five standard deviations.
        EXPECT_NEAR(changed, n * change, 5 * std::sqrt(n * change * (1 - change))) << step;
        for (const auto& [move, count] : moves) {
          EXPECT_LE(std::abs(move), 2);
          if (move != 0) {
            EXPECT_NEAR(count, changed / 4, 5 * std::sqrt(changed * 3 / 16)) << move;
          }
        }
      }
    }
  }
}

TEST(SyntheticSteps, ValuesDoNotDependOnHowTheyAreRead) {
  std::mt19937 random(1);
  for (const DType dtype : kMoved) {
    const auto source = Open(AtStep(dtype, 3, 0.3));
    const Bytes whole = ReadAll(*source, kLarge);
    Bytes scratch(3000);
    for (int i = 0; i < 500; ++i) {
      const size_t size = 1 + random() % scratch.size();
      const size_t offset = random() % (whole.size() - size + 1);
      const auto piece = source->Read(kLarge, offset, size, absl::MakeSpan(scratch));
      ASSERT_TRUE(std::equal(piece.begin(), piece.end(), whole.begin() + static_cast<std::ptrdiff_t>(offset)))
          << offset << " " << size;
      ASSERT_EQ(piece.size(), size);
    }
  }
}

TEST(SyntheticSteps, StepsTensorsAndSeedsMoveOtherElements) {
  const auto moved = [](uint64_t seed, uint32_t step, size_t tensor) {
    SyntheticOptions options = AtStep(DType::kF32, step, 0.1);
    options.seed = seed;
    const Bytes after = ReadAll(*Open(options), tensor);
    options.step = step - 1;
    const Bytes before = ReadAll(*Open(options), tensor);
    std::set<size_t> elements;
    for (size_t i = 0; i < after.size() / 4; ++i) {
      if (BitsOf(DType::kF32, after, i) != BitsOf(DType::kF32, before, i)) elements.insert(i);
    }
    return elements;
  };
  const std::set<size_t> first = moved(1, 1, kLarge);
  for (const auto& other : {moved(1, 2, kLarge), moved(2, 1, kLarge), moved(1, 1, kOtherLarge)}) {
    std::vector<size_t> both;
    std::set_intersection(first.begin(), first.end(), other.begin(), other.end(), std::back_inserter(both));
    EXPECT_NEAR(static_cast<double>(both.size()) / static_cast<double>(first.size()), 0.1, 0.03);
  }
}

TEST(SyntheticSteps, TheMostStepsLeaveValuesFiniteAndOfTheirSign) {
  for (const DType dtype : kMoved) {
    const Bytes before = ReadAll(*Open(AtStep(dtype, 0, 1)), kLarge);
    const Bytes after = ReadAll(*Open(AtStep(dtype, kMostSyntheticSteps, 1)), kLarge);
    for (int64_t i = 0; i < static_cast<int64_t>(after.size() / ElementSize(dtype)); ++i) {
      const double value = ElementAsDouble(dtype, after.data(), i);
      ASSERT_TRUE(std::isfinite(value));
      ASSERT_GT(value * ElementAsDouble(dtype, before.data(), i), 0);
    }
  }
}

TEST(SyntheticSteps, AreTheSameOnEveryMachine) {
  // And in every later version of this software: the sum of the moves of step 1, each times its element's index.
  const Bytes before = ReadAll(*Open(AtStep(DType::kBF16, 0, 0.01)), kLarge);
  const Bytes after = ReadAll(*Open(AtStep(DType::kBF16, 1, 0.01)), kLarge);
  int64_t sum = 0;
  for (size_t i = 0; i < after.size() / 2; ++i) {
    sum += static_cast<int64_t>(i) * (BitsOf(DType::kBF16, after, i) - BitsOf(DType::kBF16, before, i));
  }
  EXPECT_EQ(sum, -228856);
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

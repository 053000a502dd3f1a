#include "common/tensor/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "common/tensor/kernels.h"

namespace refit {
namespace {

template <typename T>
TensorStatistics Compute(DType dtype, const std::vector<T>& values) {
  return ComputeStatistics(dtype, {reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(T)});
}

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(StatisticsTest, CountsAndSummarises) {
  const auto s = Compute(DType::kF32, std::vector<float>{1, kNaN, -3, 0, -0.0F, 4});
  EXPECT_EQ(s.elements, 6U);
  EXPECT_EQ(s.nan_count, 1U);
  EXPECT_EQ(s.inf_count, 0U);
  EXPECT_EQ(s.zero_count, 2U);
  EXPECT_EQ(s.min, -3);
  EXPECT_EQ(s.max, 4);
  EXPECT_DOUBLE_EQ(s.mean.value(), 2.0 / 5);
}

TEST(StatisticsTest, NothingToSummarise) {
  const auto empty = Compute(DType::kF32, std::vector<float>{});
  EXPECT_EQ(empty.elements, 0U);
  EXPECT_FALSE(empty.min.has_value() || empty.max.has_value() || empty.mean.has_value());
  const auto nans = Compute(DType::kF32, std::vector<float>(2000, kNaN));
  EXPECT_EQ(nans.nan_count, 2000U);
  EXPECT_FALSE(nans.min.has_value() || nans.max.has_value() || nans.mean.has_value());
}

TEST(StatisticsTest, InfinitiesTakePart) {
  const auto one = Compute(DType::kF32, std::vector<float>{1, kInf, 2});
  EXPECT_EQ(one.inf_count, 1U);
  EXPECT_EQ(one.min, 1);
  EXPECT_EQ(one.max, kInf);
  EXPECT_EQ(one.mean, kInf);
  const auto both = Compute(DType::kF32, std::vector<float>{kInf, -kInf});
  EXPECT_EQ(both.min, -kInf);
  EXPECT_TRUE(std::isnan(both.mean.value()));
  const auto only = Compute(DType::kF32, std::vector<float>(3000, -kInf));
  EXPECT_EQ(only.max, -kInf);
  EXPECT_EQ(only.mean, -kInf);
}

TEST(StatisticsTest, MeanLosesNothing) {
  // Large values that cancel, block after block; a plain sum would lose the ones between them.
  std::vector<double> values(1024 + 10240 + 1024, 0);
  values[0] = 1e17;
  std::fill_n(values.begin() + 1024, 10240, 1);
  values[1024 + 10240] = -1e17;
  EXPECT_DOUBLE_EQ(Compute(DType::kF64, values).mean.value(), 10240.0 / (10240 + 2048));
}

TEST(StatisticsTest, AgreesWithElementsOneByOne) {
  std::mt19937 random(5);
  std::vector<uint8_t> bytes(8 * 3001);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random());
  for (DType dtype : kAllDTypes) {
    if (dtype == DType::kF64 || !IsNumber(dtype)) continue;  // sums of random F64 patterns overflow
    SCOPED_TRACE(std::string(Name(dtype)));
    const auto s = Compute(dtype, bytes);
    TensorStatistics expected;
    double min = kInf;
    double max = -kInf;
    long double sum = 0;
    expected.elements = bytes.size() / ElementSize(dtype);
    for (uint64_t i = 0; i < expected.elements; ++i) {
      const double value =
          ElementAsDouble(dtype, reinterpret_cast<const std::byte*>(bytes.data()), static_cast<int64_t>(i));
      if (std::isnan(value)) {
        ++expected.nan_count;
        continue;
      }
      expected.inf_count += std::isinf(value);
      expected.zero_count += value == 0;
      min = std::min(min, value);
      max = std::max(max, value);
      sum += value;
    }
    EXPECT_EQ(s.elements, expected.elements);
    EXPECT_EQ(s.nan_count, expected.nan_count);
    EXPECT_EQ(s.inf_count, expected.inf_count);
    EXPECT_EQ(s.zero_count, expected.zero_count);
    EXPECT_EQ(s.min, min);
    EXPECT_EQ(s.max, max);
    const auto mean = static_cast<double>(sum / (expected.elements - expected.nan_count));
    if (std::isfinite(mean)) {
      EXPECT_NEAR(s.mean.value(), mean, std::fabs(mean) * 1e-9);
    } else {
      EXPECT_FALSE(std::isfinite(s.mean.value()));
    }
  }
}

}  // namespace
}  // namespace refit

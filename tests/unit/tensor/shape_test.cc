#include "refit/shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace refit {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

TEST(ShapeTest, CountsElementsAndBytes) {
  EXPECT_EQ(ElementCount({}).value(), 1);
  EXPECT_EQ(ElementCount({0}).value(), 0);
  EXPECT_EQ(ElementCount({3, 0, 5}).value(), 0);
  EXPECT_EQ(ElementCount({128, 2816, 1408}).value(), 507510784);
  EXPECT_EQ(ElementCount({kMax}).value(), kMax);
  EXPECT_EQ(ByteCount(DType::kF32, {}).value(), 4U);
  EXPECT_EQ(ByteCount(DType::kBF16, {128, 2816, 1408}).value(), 1015021568U);
  EXPECT_EQ(ByteCount(DType::kF64, {0, 7}).value(), 0U);
  EXPECT_EQ(ByteCount(DType::kU8, {kMax}).value(), static_cast<uint64_t>(kMax));
}

TEST(ShapeTest, RefusesNegativeDimensions) {
  const absl::Status status = ElementCount({2, -1}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("[2, -1]"));
  EXPECT_FALSE(ElementCount({0, -1}).ok());
  EXPECT_FALSE(ByteCount(DType::kU8, {std::numeric_limits<int64_t>::min()}).ok());
}

TEST(ShapeTest, RefusesOverflow) {
  EXPECT_FALSE(ElementCount({kMax, 2}).ok());
  EXPECT_FALSE(ElementCount({int64_t{1} << 32, int64_t{1} << 31}).ok());
  EXPECT_FALSE(ByteCount(DType::kBF16, {kMax}).ok());
  EXPECT_FALSE(ByteCount(DType::kF64, {int64_t{1} << 60}).ok());
}

TEST(ShapeTest, AZeroHidesNoOverflow) {
  EXPECT_FALSE(ElementCount({0, kMax, 2}).ok());
  EXPECT_FALSE(ElementCount({kMax, 2, 0}).ok());
  EXPECT_FALSE(ByteCount(DType::kF64, {0, kMax}).ok());
}

TEST(ShapeTest, RefusesTooManyDimensions) {
  EXPECT_TRUE(ElementCount(Shape(kMaxRank, 1)).ok());
  EXPECT_FALSE(ElementCount(Shape(kMaxRank + 1, 1)).ok());
}

TEST(ShapeTest, Prints) {
  EXPECT_EQ(ToString({}), "[]");
  EXPECT_EQ(ToString({128, 2816, 1408}), "[128, 2816, 1408]");
}

}  // namespace
}  // namespace refit

#include "client/trainer/shared_ring.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace refit {
namespace {

constexpr uint64_t kSize = 2 << 20;
constexpr uint64_t kHalf = kSize / 2;

std::unique_ptr<SharedRing> Ring() {
  auto ring = SharedRing::Create(kSize);
  EXPECT_OK(ring);
  return *std::move(ring);
}

TEST(SharedRingTest, FillsAndWaitsForWhatWasHandled) {
  const auto ring = Ring();
  EXPECT_EQ(ring->announcement().bytes(), kSize);
  EXPECT_EQ(ring->Reserve(kHalf, kHalf), 0U);
  EXPECT_EQ(ring->Reserve(kHalf, kSize), kHalf);
  EXPECT_EQ(ring->Reserve(1, kSize + 1), std::nullopt);
  ring->Release(kHalf - 1);
  EXPECT_EQ(ring->Reserve(1, kSize + 1), std::nullopt);
  ring->Release(kHalf);
  EXPECT_EQ(ring->Reserve(kHalf, kSize + kHalf), 0U);
  EXPECT_EQ(ring->Reserve(1, kSize + kHalf + 1), std::nullopt);
}

TEST(SharedRingTest, APieceIsNeverCutAtTheEnd) {
  const auto ring = Ring();
  EXPECT_EQ(ring->Reserve(kHalf, kHalf), 0U);
  EXPECT_EQ(ring->Reserve(kHalf - 100, kSize - 100), kHalf);
  ring->Release(kHalf);
  EXPECT_EQ(ring->Reserve(200, kSize + 100), 0U);
  EXPECT_EQ(ring->Reserve(kHalf - 200, kSize + kHalf - 100), 200U);
  EXPECT_EQ(ring->Reserve(1, kSize + kHalf), std::nullopt);
  ring->Release(kSize - 100);
  EXPECT_EQ(ring->Reserve(kHalf, 2 * kSize - 100), kHalf);
}

TEST(SharedRingTest, IsWholeAgainOnceEmpty) {
  const auto ring = Ring();
  EXPECT_EQ(ring->Reserve(kHalf + 1, kHalf + 1), 0U);
  ring->Release(kHalf + 1);
  EXPECT_EQ(ring->Reserve(kSize, kSize + kHalf + 1), 0U);
  EXPECT_EQ(ring->Reserve(kSize + 1, 3 * kSize), std::nullopt);
}

}  // namespace
}  // namespace refit

#include "common/tensor/slab.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "common/tensor/buffer_pool.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

constexpr uint64_t kMiB = 1 << 20;

// That a plan for these sizes is one: bounded, aligned, and without overlaps.
void ExpectFits(const std::vector<uint64_t>& sizes) {
  const SlabPlan plan(sizes);
  ASSERT_LE(plan.slabs(), SlabPlan::kMostSlabs);
  std::vector<std::vector<SlabPlan::Place>> of_slab(plan.slabs());
  std::vector<bool> has_small(plan.slabs(), false);
  std::vector<bool> has_large(plan.slabs(), false);
  for (size_t i = 0; i < sizes.size(); ++i) {
    const SlabPlan::Place& place = plan.place(i);
    ASSERT_EQ(place.size, sizes[i]);
    ASSERT_EQ(place.begin % (sizes[i] < 64 << 10 ? 64 : 4096), 0U);
    ASSERT_LT(place.slab, plan.slabs());
    ASSERT_LE(place.begin + place.size, plan.slab_bytes(place.slab));
    of_slab[place.slab].push_back(place);
    (sizes[i] < SlabPlan::kSmallBytes ? has_small : has_large)[place.slab] = true;
  }
  uint64_t wasted = 0;
  for (size_t slab = 0; slab < plan.slabs(); ++slab) {
    ASSERT_FALSE(has_small[slab] && has_large[slab]);
    std::sort(of_slab[slab].begin(), of_slab[slab].end(),
              [](const auto& a, const auto& b) { return a.begin != b.begin ? a.begin < b.begin : a.size < b.size; });
    uint64_t end = 0;
    for (const SlabPlan::Place& place : of_slab[slab]) {
      ASSERT_GE(place.begin, end);
      wasted += place.begin - end;
      end = place.begin + place.size;
    }
    wasted += plan.slab_bytes(slab) - end;
  }
  uint64_t most_wasted = 0;
  for (const uint64_t size : sizes) most_wasted += size < 64 << 10 ? 63 : 4095;
  ASSERT_LE(wasted, most_wasted + 63 * sizes.size());
}

TEST(SlabPlanTest, ABoundedNumberOfSlabsHoldsAnyTensors) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 300; ++round) {
    std::vector<uint64_t> sizes(random() % 3000);
    const unsigned widest = 1 + random() % 42;  // up to 4 TiB
    for (uint64_t& size : sizes) {
      const unsigned bits = random() % (widest + 1);
      size = random() % ((uint64_t{1} << bits) + 1);
    }
    ExpectFits(sizes);
    if (HasFatalFailure()) FAIL() << "in round " << round;
  }
}

TEST(SlabPlanTest, HoldsWhatFillsSlabsBadly) {
  ExpectFits({});
  ExpectFits({0});
  ExpectFits(std::vector<uint64_t>(1000, 0));
  ExpectFits(std::vector<uint64_t>(1'000'000, 1));
  ExpectFits(std::vector<uint64_t>(100'000, 2 * kMiB));
  ExpectFits(std::vector<uint64_t>(1000, 33 * kMiB));      // no two fit into the least slab
  ExpectFits(std::vector<uint64_t>(1000, 64 * kMiB + 1));  // not even one
  std::vector<uint64_t> mixed;
  mixed.reserve(5000);
  for (int i = 0; i < 5000; ++i) mixed.push_back(i % 2 == 0 ? 100 : 1000 * kMiB);
  ExpectFits(mixed);
}

TEST(SlabPlanTest, VersionsOfTheSameSizesHaveTheSameSlabs) {
  const std::vector<uint64_t> sizes = {100, 5 * kMiB, 300 * kMiB, 70 << 10, 0, 63 * kMiB};
  const SlabPlan a(sizes);
  const SlabPlan b(sizes);
  ASSERT_EQ(a.slabs(), b.slabs());
  for (size_t slab = 0; slab < a.slabs(); ++slab) EXPECT_EQ(a.slab_bytes(slab), b.slab_bytes(slab));
}

TEST(SlabPlanTest, SizesBeyondAllMemoryAreNoTrap) {
  const std::vector<uint64_t> sizes = {~uint64_t{0}, ~uint64_t{0} - 4000, uint64_t{1} << 63, 100};
  BufferPool pool(0);
  Slabs slabs{SlabPlan(sizes)};
  const auto source = [&](size_t size) { return pool.Get(size); };
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_THAT(slabs.Get(i, source), StatusIs(absl::StatusCode::kResourceExhausted));
  }
  EXPECT_OK(slabs.Get(3, source));
}

TEST(SlabsTest, TensorsShareSlabsAndDoNotOverlap) {
  BufferPool pool(0);
  std::vector<uint64_t> sizes;
  for (uint64_t i = 0; i < 5000; ++i) sizes.push_back(i % 3000 * (i % 7 == 0 ? 50 : 1));
  Slabs slabs{SlabPlan(sizes)};
  int had = 0;
  const auto source = [&](size_t size) {
    ++had;
    return pool.Get(size);
  };
  std::vector<std::shared_ptr<Buffer>> buffers;
  for (size_t i = 0; i < sizes.size(); ++i) {
    buffers.push_back(*slabs.Get(i, source));
    ASSERT_EQ(buffers[i]->size(), sizes[i]);
    ASSERT_EQ(reinterpret_cast<uintptr_t>(buffers[i]->data()) % 64, 0U);
    std::memset(buffers[i]->data(), static_cast<int>(i % 251), sizes[i]);
  }
  EXPECT_EQ(had, static_cast<int>(slabs.plan().slabs()));
  for (size_t i = 0; i < sizes.size(); ++i) {
    for (const std::byte byte : buffers[i]->span()) ASSERT_EQ(byte, static_cast<std::byte>(i % 251));
  }
}

TEST(SlabsTest, ASlabComesWithItsFirstTensorAndGoesWithItsLast) {
  BufferPool pool(1 << 30);
  const auto source = [&](size_t size) { return pool.Get(size); };
  std::shared_ptr<Buffer> last;
  {
    Slabs slabs{SlabPlan(std::vector<uint64_t>{kMiB, 100, kMiB})};
    EXPECT_EQ(pool.used_bytes(), 0U);
    const auto first = *slabs.Get(0, source);
    EXPECT_EQ(pool.used_bytes(), 2 * kMiB);
    last = *slabs.Get(2, source);
    EXPECT_EQ(pool.used_bytes(), 2 * kMiB);
  }
  std::memset(last->data(), 1, last->size());
  EXPECT_EQ(pool.used_bytes(), 2 * kMiB);
  last.reset();
  EXPECT_EQ(pool.used_bytes(), 0U);
  EXPECT_EQ(pool.idle_bytes(), 2 * kMiB);
}

TEST(SlabsTest, ATensorThatOthersMaySeeKeepsItsSlabFromReuse) {
  BufferPool pool(1 << 30);
  const auto source = [&](size_t size) { return pool.Get(size); };
  Slabs slabs{SlabPlan(std::vector<uint64_t>{kMiB, kMiB, 100})};
  for (size_t i = 0; i < 3; ++i) {
    const auto tensor = *slabs.Get(i, source);
    if (i == 1) tensor->NeverReuse();
  }
  slabs = {};
  EXPECT_EQ(pool.used_bytes(), 0U);
  EXPECT_EQ(pool.idle_bytes(), 128U);  // the slab of the small one alone
}

TEST(SlabsTest, TensorsSayWhereInTheSharedSlabTheyLie) {
  BufferPool pool(0, BufferPool::Fit::kExact, nullptr, Backing::kShared);
  const auto source = [&](size_t size) { return pool.Get(size); };
  Slabs slabs{SlabPlan(std::vector<uint64_t>{3 * kMiB, 5 * kMiB})};
  const auto first = *slabs.Get(0, source);
  const auto second = *slabs.Get(1, source);
  ASSERT_GE(first->shared_fd(), 0);
  EXPECT_EQ(first->shared_fd(), second->shared_fd());
  EXPECT_EQ(first->shared().begin, 0U);
  EXPECT_EQ(second->shared().begin, 3 * kMiB);
  EXPECT_EQ(first->shared().bytes, 8 * kMiB);
}

TEST(SlabsTest, PassesErrorsOn) {
  Slabs slabs{SlabPlan(std::vector<uint64_t>{10, kMiB})};
  const auto source = [](size_t) -> absl::StatusOr<std::shared_ptr<Buffer>> {
    return absl::ResourceExhaustedError("no");
  };
  EXPECT_EQ(slabs.Get(0, source).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(slabs.Get(1, source).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace refit

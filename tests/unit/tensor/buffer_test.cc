#include "refit/buffer.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <limits>
#include <optional>
#include <thread>
#include <vector>

#include "common/tensor/buffer_pool.h"

namespace refit {
namespace {

constexpr size_t kHugePage = 2 << 20;

TEST(BufferTest, IsAlignedAndWritable) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{4097}, kHugePage - 1, kHugePage,
                      kHugePage + 1, 3 * kHugePage + 5}) {
    SCOPED_TRACE(size);
    auto buffer = Buffer::Allocate(size);
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ((*buffer)->size(), size);
    EXPECT_EQ((*buffer)->span().size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*buffer)->data()) % (size >= kHugePage ? kHugePage : 64), 0U);
    std::memset((*buffer)->data(), 0x5A, size);
    const Buffer& read = **buffer;
    for (std::byte b : read.span()) ASSERT_EQ(b, std::byte{0x5A});
  }
}

TEST(BufferTest, PrefaultingHasAllPagesThereAndKeepsWhatTheyHold) {
  for (const Backing backing : {Backing::kPrivate, Backing::kShared}) {
    constexpr size_t kSize = 3 * kHugePage + 5;
    auto buffer = Buffer::Allocate(kSize, backing).value();
    buffer->data()[kHugePage + 1] = std::byte{7};
    buffer->Prefault(0, kHugePage + 1);
    buffer->Prefault(kHugePage + 1, 100 * kHugePage);  // no farther than the end
    EXPECT_EQ(buffer->data()[kHugePage + 1], std::byte{7});
    std::vector<unsigned char> resident(kSize / 4096 + 1);
    ASSERT_EQ(mincore(buffer->data(), kSize, resident.data()), 0);
    for (const unsigned char page : resident) ASSERT_EQ(page & 1, 1);
  }
}

TEST(BufferTest, SaysWhenThereIsNoMemory) {
  BufferPool pool(1 << 30);
  for (size_t size : {size_t{1} << 50, size_t{1} << 62, std::numeric_limits<size_t>::max()}) {
    EXPECT_EQ(Buffer::Allocate(size).status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(pool.Get(size).status().code(), absl::StatusCode::kResourceExhausted);
  }
  EXPECT_EQ(pool.used_bytes(), 0U);
}

TEST(BufferPoolTest, ReusesBlocksOfTheSameCapacity) {
  BufferPool pool(1 << 30);
  auto first = pool.Get(3 * kHugePage).value();
  const std::byte* address = first->data();
  EXPECT_EQ(pool.used_bytes(), 3 * kHugePage);
  EXPECT_EQ(pool.idle_bytes(), 0U);
  first.reset();
  EXPECT_EQ(pool.used_bytes(), 0U);
  EXPECT_EQ(pool.idle_bytes(), 3 * kHugePage);

  auto other = pool.Get(kHugePage).value();
  EXPECT_EQ(pool.idle_bytes(), 3 * kHugePage);
  auto again = pool.Get(3 * kHugePage - 100).value();
  EXPECT_EQ(again->data(), address);
  EXPECT_EQ(again->size(), 3 * kHugePage - 100);
  EXPECT_EQ(pool.used_bytes(), 4 * kHugePage);
  EXPECT_EQ(pool.idle_bytes(), 0U);
}

TEST(BufferPoolTest, ALoosePoolReusesTheSmallestBlockThatFits) {
  BufferPool pool(1 << 30, BufferPool::Fit::kLoose);
  const auto get = [&](size_t size) { return *pool.Get(size); };
  const std::byte* large = nullptr;
  const std::byte* medium = nullptr;
  {
    const auto first = get(40 << 20);
    const auto second = get(16 << 20);
    large = first->data();
    medium = second->data();
  }
  {
    const auto fits_both = get(12 << 20);
    EXPECT_EQ(fits_both->data(), medium);
    EXPECT_EQ(fits_both->size(), size_t{12} << 20);
    EXPECT_EQ(pool.used_bytes(), uint64_t{16} << 20);
    EXPECT_EQ(get(10 << 20)->data(), large);  // four times as large, and the only one left
  }
  EXPECT_EQ(pool.used_bytes(), 0u);
  const auto too_small_for_either = get(2 << 20);
  EXPECT_NE(too_small_for_either->data(), medium);
  EXPECT_NE(too_small_for_either->data(), large);
}

TEST(BufferPoolTest, ReusesTheOneThatWasFreedLast) {
  BufferPool pool(1 << 30);
  auto a = pool.Get(1000).value();
  auto b = pool.Get(1000).value();
  const std::byte* last = a->data();
  b.reset();
  a.reset();
  EXPECT_EQ(pool.Get(1000).value()->data(), last);
}

TEST(BufferPoolTest, KeepsNoMoreIdleThanItMay) {
  BufferPool pool(2 * kHugePage);
  auto a = pool.Get(kHugePage).value();
  auto b = pool.Get(kHugePage).value();
  auto big = pool.Get(3 * kHugePage).value();
  big.reset();
  EXPECT_EQ(pool.idle_bytes(), 0U);
  a.reset();
  b.reset();
  EXPECT_EQ(pool.idle_bytes(), 2 * kHugePage);
  pool.TrimTo(kHugePage);
  EXPECT_EQ(pool.idle_bytes(), kHugePage);
  pool.TrimTo(0);
  EXPECT_EQ(pool.idle_bytes(), 0U);
}

TEST(BufferPoolTest, FreesTheOldestForTheNewest) {
  BufferPool pool(2 * kHugePage);
  pool.Get(kHugePage).value().reset();
  pool.Get(2 * kHugePage).value().reset();
  EXPECT_EQ(pool.idle_bytes(), 2 * kHugePage);
  auto big = pool.Get(2 * kHugePage).value();
  EXPECT_EQ(pool.idle_bytes(), 0U);
}

TEST(BufferPoolTest, FreesIdleMemoryBeforeItGivesUp) {
  BufferPool pool(1 << 30);
  pool.Get(kHugePage).value().reset();
  EXPECT_FALSE(pool.Get(size_t{1} << 50).ok());
  EXPECT_EQ(pool.idle_bytes(), 0U);
}

TEST(BufferPoolTest, BuffersOutliveThePool) {
  std::optional<BufferPool> pool(std::in_place, 1 << 30);
  auto buffer = pool->Get(kHugePage).value();
  auto small = pool->Get(0).value();
  pool.reset();
  std::memset(buffer->data(), 1, buffer->size());
  EXPECT_EQ(buffer->data()[kHugePage - 1], std::byte{1});
}

TEST(BufferPoolTest, GetWithinHandsOutNoMoreThanItMay) {
  int released = 0;
  BufferPool pool(1 << 30, BufferPool::Fit::kExact, [&released] { ++released; });
  auto first = pool.GetWithin(2 * kHugePage, 3 * kHugePage).value();
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(pool.GetWithin(2 * kHugePage, 3 * kHugePage).value(), nullptr);
  EXPECT_EQ(pool.GetWithin(4 * kHugePage, 3 * kHugePage).value(), nullptr);
  EXPECT_EQ(pool.used_bytes(), 2 * kHugePage);
  const std::byte* address = first->data();
  first.reset();
  EXPECT_EQ(released, 1);
  // An idle block that fits stays; others make room.
  auto again = pool.GetWithin(2 * kHugePage, 3 * kHugePage).value();
  EXPECT_EQ(again->data(), address);
  again.reset();
  auto other = pool.GetWithin(kHugePage, 2 * kHugePage).value();
  EXPECT_EQ(pool.used_bytes(), kHugePage);
  EXPECT_EQ(pool.idle_bytes(), 0U);
  EXPECT_EQ(released, 2);
}

TEST(BufferPoolTest, ManyThreads) {
  BufferPool pool(8 * kHugePage);
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, t] {
      for (int i = 0; i < 300; ++i) {
        auto buffer = pool.Get(i % 3 == 0 ? kHugePage : 100 * (i % 5)).value();
        if (buffer->size() > 0) {
          buffer->data()[0] = buffer->data()[buffer->size() - 1] = static_cast<std::byte>(t);
          ASSERT_EQ(buffer->data()[0], static_cast<std::byte>(t));
        }
        if (i % 50 == 0) pool.TrimTo(0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool.used_bytes(), 0U);
  EXPECT_LE(pool.idle_bytes(), 8 * kHugePage);
}

}  // namespace
}  // namespace refit

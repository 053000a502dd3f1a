#include "common/tensor/slab.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace refit {
namespace {

TEST(SlabTest, SmallBuffersShareBlocksAndDoNotOverlap) {
  BufferPool pool(0);
  Slab slab;
  int blocks = 0;
  const auto source = [&](size_t size) {
    ++blocks;
    return pool.Get(size);
  };
  std::vector<std::shared_ptr<Buffer>> buffers;
  for (int i = 0; i < 5000; ++i) {
    buffers.push_back(*slab.Get(i % 3000, source));
    ASSERT_EQ(buffers.back()->size(), i % 3000U);
    ASSERT_EQ(reinterpret_cast<uintptr_t>(buffers.back()->data()) % 64, 0U);
    std::memset(buffers.back()->data(), i % 251, buffers.back()->size());
  }
  EXPECT_LT(blocks, 20);
  for (int i = 0; i < 5000; ++i) {
    for (const std::byte byte : buffers[i]->span()) ASSERT_EQ(byte, static_cast<std::byte>(i % 251));
  }
}

TEST(SlabTest, BlocksComeBackOnceAllTheirPiecesAreGone) {
  BufferPool pool(1 << 30);
  const auto source = [&](size_t size) { return pool.Get(size); };
  std::shared_ptr<Buffer> last;
  {
    Slab slab;
    const auto first = *slab.Get(100, source);
    last = *slab.Get(100, source);
  }
  EXPECT_GT(pool.used_bytes(), 0U);
  std::memset(last->data(), 1, last->size());
  last.reset();
  EXPECT_EQ(pool.used_bytes(), 0U);
  EXPECT_GT(pool.idle_bytes(), 0U);
}

TEST(SlabTest, WhatIsNotSmallIsItsOwn) {
  BufferPool pool(0);
  Slab slab;
  std::vector<size_t> asked;
  const auto source = [&](size_t size) {
    asked.push_back(size);
    return pool.Get(size);
  };
  EXPECT_EQ((*slab.Get(1 << 20, source))->size(), 1U << 20);
  EXPECT_EQ(asked, std::vector<size_t>{1 << 20});
}

TEST(SlabTest, PassesErrorsOn) {
  Slab slab;
  const auto source = [](size_t) -> absl::StatusOr<std::shared_ptr<Buffer>> {
    return absl::ResourceExhaustedError("no");
  };
  EXPECT_EQ(slab.Get(10, source).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(slab.Get(1 << 20, source).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace refit

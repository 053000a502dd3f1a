#include "server/pull/chunk_cache.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/status_matchers.h"

namespace refit {
namespace {

// Only the address counts.
const void* Part(uintptr_t number) { return reinterpret_cast<const void*>(number * 64); }

void Insert(ChunkCache& cache, const void* part, uint64_t chunk, uint64_t bytes) {
  auto buffer = Buffer::Allocate(bytes);
  ASSERT_OK(buffer);
  std::memset((*buffer)->data(), static_cast<int>(chunk), bytes);
  cache.Insert(part, chunk, *std::move(buffer));
}

TEST(ChunkCache, FindsWhatWasInserted) {
  ChunkCache cache(1000);
  EXPECT_EQ(cache.Find(Part(1), 0), nullptr);
  Insert(cache, Part(1), 3, 100);
  EXPECT_EQ(cache.Find(Part(1), 2), nullptr);
  EXPECT_EQ(cache.Find(Part(2), 3), nullptr);
  const auto found = cache.Find(Part(1), 3);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->data()[99], std::byte{3});
  EXPECT_EQ(cache.inserted_bytes(), 100u);
  EXPECT_EQ(cache.found_bytes(), 100u);
}

TEST(ChunkCache, TheLeastRecentlyUsedGoFirst) {
  ChunkCache cache(300);
  for (uint64_t chunk = 0; chunk < 3; ++chunk) Insert(cache, Part(1), chunk, 100);
  EXPECT_NE(cache.Find(Part(1), 0), nullptr);
  Insert(cache, Part(1), 3, 100);
  EXPECT_EQ(cache.Find(Part(1), 1), nullptr);
  for (const uint64_t chunk : {0, 2, 3}) EXPECT_NE(cache.Find(Part(1), chunk), nullptr) << chunk;
}

TEST(ChunkCache, WhatIsLargerThanTheLimitIsNotKeptButIsTheCallers) {
  ChunkCache cache(50);
  auto buffer = Buffer::Allocate(100);
  ASSERT_OK(buffer);
  cache.Insert(Part(1), 0, *buffer);
  EXPECT_EQ(cache.Find(Part(1), 0), nullptr);
  std::memset((*buffer)->data(), 1, 100);
}

TEST(ChunkCache, APartIsForgottenAsAWhole) {
  ChunkCache cache(1000);
  for (const uintptr_t part : {1, 2, 3}) {
    for (uint64_t chunk = 0; chunk < 3; ++chunk) Insert(cache, Part(part), chunk, 10);
  }
  cache.Drop(Part(2));
  EXPECT_EQ(cache.Find(Part(2), 0), nullptr);
  EXPECT_EQ(cache.Find(Part(2), 2), nullptr);
  EXPECT_NE(cache.Find(Part(1), 2), nullptr);
  EXPECT_NE(cache.Find(Part(3), 0), nullptr);
}

}  // namespace
}  // namespace refit

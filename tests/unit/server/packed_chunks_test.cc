#include "server/pull/packed_chunks.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/status_matchers.h"

namespace refit {
namespace {

// Only the address counts.
const VersionPart* Part(uintptr_t number) { return reinterpret_cast<const VersionPart*>(number * 64); }

void Insert(PackedChunks& packed, const VersionPart* part, uint64_t chunk, uint64_t bytes) {
  auto buffer = packed.NewBuffer(bytes);
  ASSERT_OK(buffer);
  std::memset((*buffer)->data(), static_cast<int>(chunk), bytes);
  packed.Insert(part, chunk, *std::move(buffer));
}

TEST(PackedChunks, FindsWhatWasInserted) {
  PackedChunks packed(1000);
  EXPECT_EQ(packed.Find(Part(1), 0), nullptr);
  Insert(packed, Part(1), 3, 100);
  EXPECT_EQ(packed.Find(Part(1), 2), nullptr);
  EXPECT_EQ(packed.Find(Part(2), 3), nullptr);
  const auto found = packed.Find(Part(1), 3);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->data()[99], std::byte{3});
  EXPECT_EQ(packed.packed_bytes(), 100u);
  EXPECT_EQ(packed.shared_bytes(), 100u);
}

TEST(PackedChunks, TheLeastRecentlyUsedGoFirst) {
  PackedChunks packed(300);
  for (uint64_t chunk = 0; chunk < 3; ++chunk) Insert(packed, Part(1), chunk, 100);
  EXPECT_NE(packed.Find(Part(1), 0), nullptr);
  Insert(packed, Part(1), 3, 100);
  EXPECT_EQ(packed.Find(Part(1), 1), nullptr);
  for (const uint64_t chunk : {0, 2, 3}) EXPECT_NE(packed.Find(Part(1), chunk), nullptr) << chunk;
}

TEST(PackedChunks, WhatIsLargerThanTheLimitIsNotKeptButIsTheCallers) {
  PackedChunks packed(50);
  auto buffer = packed.NewBuffer(100);
  ASSERT_OK(buffer);
  packed.Insert(Part(1), 0, *buffer);
  EXPECT_EQ(packed.Find(Part(1), 0), nullptr);
  std::memset((*buffer)->data(), 1, 100);
}

TEST(PackedChunks, APartIsForgottenAsAWhole) {
  PackedChunks packed(1000);
  for (const uintptr_t part : {1, 2, 3}) {
    for (uint64_t chunk = 0; chunk < 3; ++chunk) Insert(packed, Part(part), chunk, 10);
  }
  packed.Drop(Part(2));
  EXPECT_EQ(packed.Find(Part(2), 0), nullptr);
  EXPECT_EQ(packed.Find(Part(2), 2), nullptr);
  EXPECT_NE(packed.Find(Part(1), 2), nullptr);
  EXPECT_NE(packed.Find(Part(3), 0), nullptr);
}

}  // namespace
}  // namespace refit

#include "server/store/chunk_progress.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace refit {
namespace {

using Chunks = ChunkProgress::Chunks;

constexpr uint64_t kChunk = 64;

std::map<uint64_t, uint64_t> Counted(const ChunkCounts& counts) {
  std::map<uint64_t, uint64_t> by_chunk;
  for (size_t i = 0; i < counts.counts().size(); ++i) {
    if (counts.counts()[i] != 0) by_chunk[counts.first_chunk() + i] = counts.counts()[i];
  }
  return by_chunk;
}

TEST(ChunkCounts, RandomRunsCountAsElementByElement) {
  std::mt19937 random(7);
  const auto between = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int i = 0; i < 2000; ++i) {
    const uint64_t element = uint64_t{1} << between(0, 3);
    ChunkCounts counts(1 << 20, element, kChunk);
    std::map<uint64_t, uint64_t> expected;
    for (int64_t n = between(1, 4); n > 0; --n) {
      StridedRuns runs{between(0, 400), between(1, 9), between(1, 60), 0};
      runs.stride = runs.length + between(0, 90);
      counts.Add(runs);
      for (int64_t run = 0; run < runs.count; ++run) {
        for (int64_t e = 0; e < runs.length; ++e) {
          expected[(runs.first + run * runs.stride + e) * element / kChunk] += element;
        }
      }
    }
    ASSERT_EQ(Counted(counts), expected) << i;
  }
}

TEST(ChunkProgress, AChunkIsWholeWithItsLastByte) {
  ChunkProgress progress(150, kChunk);
  const auto take = [&](int64_t first, int64_t length) {
    ChunkCounts counts(150, 1, kChunk);
    counts.Add({first, 1, length, length});
    return progress.Take(counts);
  };
  EXPECT_EQ(take(140, 10), Chunks());
  EXPECT_EQ(take(0, 63), Chunks());
  EXPECT_EQ(take(128, 12), Chunks({2}));
  EXPECT_EQ(take(63, 65), Chunks({0, 1}));
}

TEST(ChunkProgress, AnEmptyTensorHasNothingToCount) {
  ChunkProgress progress(0, kChunk);
  EXPECT_EQ(progress.Take(ChunkCounts(0, 1, kChunk)), Chunks());
}

}  // namespace
}  // namespace refit

#include "server/store/rank_shards.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Box Rows(int64_t begin, int64_t end) { return {{begin, 0}, {end - begin, 8}}; }

const std::vector<TensorSpec>& Native() {
  static const std::vector<TensorSpec> native = {{"a", DType::kF32, {4, 8}}, {"b", DType::kF32, {2, 8}}};
  return native;
}

TEST(RankShards, IsCompleteOnceAllRanksHaveJoined) {
  RankShards rank_shards(Native(), 2);
  EXPECT_THAT(rank_shards.Missing(), ElementsAre(0, 1));
  EXPECT_THAT(rank_shards.Join(1, {Rows(0, 3), Rows(0, 2)}), IsOk());
  EXPECT_FALSE(rank_shards.is_complete());
  EXPECT_THAT(rank_shards.Missing(), ElementsAre(0));
  const auto last = rank_shards.Join(0, {Rows(3, 4), Rows(0, 0)});
  ASSERT_OK(last);
  EXPECT_TRUE(*last);
  EXPECT_TRUE(rank_shards.is_complete());
  EXPECT_THAT(rank_shards.DigestOnly(0), IsEmpty());
  EXPECT_THAT(rank_shards.DigestOnly(1), IsEmpty());
  EXPECT_THAT(rank_shards.Missing(), ElementsAre(0, 1));  // now: their commits
}

TEST(RankShards, ARankJoinsOnce) {
  RankShards rank_shards(Native(), 2);
  ASSERT_OK(rank_shards.Join(0, {Rows(0, 4), Rows(0, 2)}));
  EXPECT_THAT(rank_shards.Join(0, {Rows(0, 4), Rows(0, 2)}), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_EQ(rank_shards.joined(), 1u);
}

TEST(RankShards, BoxesThatOverlapNameTheirRanks) {
  RankShards rank_shards(Native(), 2);
  ASSERT_OK(rank_shards.Join(0, {Rows(0, 3), Rows(0, 2)}));
  EXPECT_THAT(
      rank_shards.Join(1, {Rows(2, 4), Rows(0, 0)}),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("a F32 [4, 8]"), HasSubstr("[0:3, 0:8] of rank 0"), HasSubstr("[2:4, 0:8] of rank 1"))));
  EXPECT_FALSE(rank_shards.is_complete());
}

TEST(RankShards, WhatNobodyHoldsIsNamed) {
  RankShards rank_shards(Native(), 2);
  ASSERT_OK(rank_shards.Join(0, {Rows(0, 4), Rows(0, 1)}));
  EXPECT_THAT(rank_shards.Join(1, {Rows(0, 0), Rows(2, 2)}),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("b F32"), HasSubstr("[1:2, 0:8]"))));
}

TEST(RankShards, ReplicasAreSentByWhoHasLeastToSend) {
  RankShards rank_shards(Native(), 3);
  ASSERT_OK(rank_shards.Join(0, {Rows(0, 4), Rows(0, 2)}));
  ASSERT_OK(rank_shards.Join(1, {Rows(0, 0), Rows(0, 2)}));
  ASSERT_OK(rank_shards.Join(2, {Rows(0, 4), Rows(0, 2)}));
  EXPECT_THAT(rank_shards.DigestOnly(0), ElementsAre(1));
  EXPECT_THAT(rank_shards.DigestOnly(1), IsEmpty());
  EXPECT_THAT(rank_shards.DigestOnly(2), ElementsAre(0, 1));
}

TEST(RankShards, DigestsOfReplicasMustAgree) {
  RankShards rank_shards(Native(), 3);
  for (uint32_t rank = 0; rank < 3; ++rank) {
    ASSERT_OK(rank_shards.Join(rank, {Rows(0, 4), rank < 2 ? Rows(0, 1) : Rows(1, 2)}));
  }
  EXPECT_OK(rank_shards.CheckDigest(2, 1, 5));  // another box
  EXPECT_OK(rank_shards.CheckDigest(0, 1, 7));
  EXPECT_THAT(rank_shards.CheckDigest(1, 1, 8),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("b F32 [2, 8] box [0:1, 0:8]"), HasSubstr("ranks 0 and 1"))));
  EXPECT_OK(rank_shards.CheckDigest(1, 1, 7));
}

TEST(RankShards, CommitsWithTheLastWord) {
  RankShards rank_shards(Native(), 2);
  for (uint32_t rank = 0; rank < 2; ++rank) ASSERT_OK(rank_shards.Join(rank, {Rows(0, 4), Rows(0, 2)}));
  EXPECT_FALSE(rank_shards.Commit(1));
  EXPECT_FALSE(rank_shards.Commit(1));
  EXPECT_THAT(rank_shards.Missing(), ElementsAre(0));
  EXPECT_TRUE(rank_shards.Commit(0));
  EXPECT_THAT(rank_shards.Missing(), IsEmpty());
}

TEST(RankShards, OnlyThoseWhoHadNotJoinedHearOfAnAbort) {
  RankShards rank_shards(Native(), 2);
  ASSERT_OK(rank_shards.Join(0, {Rows(0, 4), Rows(0, 2)}));
  EXPECT_FALSE(rank_shards.Hear(0));
  EXPECT_TRUE(rank_shards.Hear(1));
  EXPECT_FALSE(rank_shards.Hear(1));
}

TEST(RankShards, ScalarsAreWhole) {
  const std::vector<TensorSpec> scalar = {{"s", DType::kF32, {}}};
  RankShards rank_shards(scalar, 2);
  ASSERT_OK(rank_shards.Join(0, {Box{}}));
  ASSERT_OK(rank_shards.Join(1, {Box{}}));
  EXPECT_TRUE(rank_shards.is_complete());
  EXPECT_EQ(rank_shards.DigestOnly(0).size() + rank_shards.DigestOnly(1).size(), 1u);
}

}  // namespace
}  // namespace refit

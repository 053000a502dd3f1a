#include "server/store/assembly.h"

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

TEST(Assembly, IsCompleteOnceAllRanksHaveJoined) {
  Assembly assembly(Native(), 2);
  EXPECT_THAT(assembly.Missing(), ElementsAre(0, 1));
  EXPECT_THAT(assembly.Join(1, {Rows(0, 3), Rows(0, 2)}), IsOk());
  EXPECT_FALSE(assembly.is_complete());
  EXPECT_THAT(assembly.Missing(), ElementsAre(0));
  const auto last = assembly.Join(0, {Rows(3, 4), Rows(0, 0)});
  ASSERT_OK(last);
  EXPECT_TRUE(*last);
  EXPECT_TRUE(assembly.is_complete());
  EXPECT_THAT(assembly.DigestOnly(0), IsEmpty());
  EXPECT_THAT(assembly.DigestOnly(1), IsEmpty());
  EXPECT_THAT(assembly.Missing(), ElementsAre(0, 1));  // now: their commits
}

TEST(Assembly, ARankJoinsOnce) {
  Assembly assembly(Native(), 2);
  ASSERT_OK(assembly.Join(0, {Rows(0, 4), Rows(0, 2)}));
  EXPECT_THAT(assembly.Join(0, {Rows(0, 4), Rows(0, 2)}), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_EQ(assembly.joined(), 1u);
}

TEST(Assembly, BoxesThatOverlapNameTheirRanks) {
  Assembly assembly(Native(), 2);
  ASSERT_OK(assembly.Join(0, {Rows(0, 3), Rows(0, 2)}));
  EXPECT_THAT(
      assembly.Join(1, {Rows(2, 4), Rows(0, 0)}),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("a F32 [4, 8]"), HasSubstr("[0:3, 0:8] of rank 0"), HasSubstr("[2:4, 0:8] of rank 1"))));
  EXPECT_FALSE(assembly.is_complete());
}

TEST(Assembly, WhatNobodyHoldsIsNamed) {
  Assembly assembly(Native(), 2);
  ASSERT_OK(assembly.Join(0, {Rows(0, 4), Rows(0, 1)}));
  EXPECT_THAT(assembly.Join(1, {Rows(0, 0), Rows(2, 2)}),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("b F32"), HasSubstr("[1:2, 0:8]"))));
}

TEST(Assembly, ReplicasAreSentByWhoHasLeastToSend) {
  Assembly assembly(Native(), 3);
  ASSERT_OK(assembly.Join(0, {Rows(0, 4), Rows(0, 2)}));
  ASSERT_OK(assembly.Join(1, {Rows(0, 0), Rows(0, 2)}));
  ASSERT_OK(assembly.Join(2, {Rows(0, 4), Rows(0, 2)}));
  EXPECT_THAT(assembly.DigestOnly(0), ElementsAre(1));
  EXPECT_THAT(assembly.DigestOnly(1), IsEmpty());
  EXPECT_THAT(assembly.DigestOnly(2), ElementsAre(0, 1));
}

TEST(Assembly, DigestsOfReplicasMustAgree) {
  Assembly assembly(Native(), 3);
  for (uint32_t rank = 0; rank < 3; ++rank) {
    ASSERT_OK(assembly.Join(rank, {Rows(0, 4), rank < 2 ? Rows(0, 1) : Rows(1, 2)}));
  }
  EXPECT_OK(assembly.CheckDigest(2, 1, 5));  // another box
  EXPECT_OK(assembly.CheckDigest(0, 1, 7));
  EXPECT_THAT(assembly.CheckDigest(1, 1, 8),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("b F32 [2, 8] box [0:1, 0:8]"), HasSubstr("ranks 0 and 1"))));
  EXPECT_OK(assembly.CheckDigest(1, 1, 7));
}

TEST(Assembly, CommitsWithTheLastWord) {
  Assembly assembly(Native(), 2);
  for (uint32_t rank = 0; rank < 2; ++rank) ASSERT_OK(assembly.Join(rank, {Rows(0, 4), Rows(0, 2)}));
  EXPECT_FALSE(assembly.Commit(1));
  EXPECT_FALSE(assembly.Commit(1));
  EXPECT_THAT(assembly.Missing(), ElementsAre(0));
  EXPECT_TRUE(assembly.Commit(0));
  EXPECT_THAT(assembly.Missing(), IsEmpty());
}

TEST(Assembly, OnlyThoseWhoHadNotJoinedHearOfAnAbort) {
  Assembly assembly(Native(), 2);
  ASSERT_OK(assembly.Join(0, {Rows(0, 4), Rows(0, 2)}));
  EXPECT_FALSE(assembly.Hear(0));
  EXPECT_TRUE(assembly.Hear(1));
  EXPECT_FALSE(assembly.Hear(1));
}

TEST(Assembly, ScalarsAreWhole) {
  const std::vector<TensorSpec> scalar = {{"s", DType::kF32, {}}};
  Assembly assembly(scalar, 2);
  ASSERT_OK(assembly.Join(0, {Box{}}));
  ASSERT_OK(assembly.Join(1, {Box{}}));
  EXPECT_TRUE(assembly.is_complete());
  EXPECT_EQ(assembly.DigestOnly(0).size() + assembly.DigestOnly(1).size(), 1u);
}

}  // namespace
}  // namespace refit

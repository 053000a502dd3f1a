#include "client/worker/candidates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace refit {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class CandidatesTest : public ::testing::Test {
 protected:
  static Candidates Of(const std::string& zone,
                       std::vector<Candidate> all = {{"a", "", 0}, {"b", "", 1}, {"c", "", 2}}) {
    Candidates candidates(zone);
    candidates.Set(std::move(all));
    return candidates;
  }

  std::vector<std::string> InOrder(const Candidates& candidates, const Candidates::Addresses& except = {}) const {
    return Names(candidates.InOrder(except, now_));
  }
  std::vector<std::string> Nearer(const Candidates& candidates, const std::string& than) const {
    return Names(candidates.Nearer(than, now_));
  }
  static std::vector<std::string> Names(const std::vector<Candidate>& candidates) {
    std::vector<std::string> names;
    names.reserve(candidates.size());
    for (const Candidate& candidate : candidates) names.push_back(candidate.address);
    return names;
  }

  Candidates::Clock::time_point now_ = Candidates::Clock::now();
};

TEST_F(CandidatesTest, WithoutAZoneTheListDecides) {
  const Candidates candidates = Of("");
  EXPECT_THAT(InOrder(candidates), ElementsAre("a", "b", "c"));
  EXPECT_THAT(InOrder(candidates, {"b"}), ElementsAre("a", "c"));
  EXPECT_THAT(Nearer(candidates, "c"), ElementsAre("a", "b"));
  EXPECT_THAT(Nearer(candidates, "a"), IsEmpty());
  EXPECT_FALSE(candidates.LacksZone("a"));
}

TEST_F(CandidatesTest, TheOwnZoneComesFirstAndOtherZonesLast) {
  Candidates candidates = Of("here");
  EXPECT_TRUE(candidates.LacksZone("a"));
  candidates.SetZone("a", "there");
  EXPECT_THAT(InOrder(candidates), ElementsAre("b", "c", "a"));
  candidates.SetZone("c", "here");
  EXPECT_THAT(InOrder(candidates), ElementsAre("c", "b", "a"));
  EXPECT_THAT(Nearer(candidates, "a"), ElementsAre("c", "b"));
  EXPECT_THAT(Nearer(candidates, "c"), IsEmpty());
  candidates.SetZone("b", "");
  EXPECT_THAT(InOrder(candidates), ElementsAre("c", "a", "b"));
}

TEST_F(CandidatesTest, WhatFailedRestsAndIsTriedLast) {
  Candidates candidates = Of("");
  candidates.LetRest("a", now_);
  EXPECT_THAT(InOrder(candidates), ElementsAre("b", "c", "a"));
  EXPECT_THAT(Nearer(candidates, "c"), ElementsAre("b"));
  now_ += seconds(1);
  candidates.LetRest("b", now_);
  EXPECT_THAT(InOrder(candidates), ElementsAre("c", "a", "b"));
  EXPECT_FALSE(candidates.AllRest(now_));
  candidates.LetRest("c", now_);
  EXPECT_TRUE(candidates.AllRest(now_));
  now_ += seconds(60);
  EXPECT_THAT(InOrder(candidates), ElementsAre("a", "b", "c"));
}

TEST_F(CandidatesTest, WhatFailsAgainRestsLongerUntilItHasHeld) {
  Candidates candidates = Of("");
  const auto rest = [&] {
    candidates.LetRest("a", now_);
    const auto begin = now_;
    while (candidates.Rests("a", now_)) now_ += std::chrono::milliseconds(100);
    return now_ - begin;
  };
  EXPECT_EQ(rest(), seconds(2));
  EXPECT_EQ(rest(), seconds(4));
  EXPECT_EQ(rest(), seconds(8));
  for (int i = 0; i < 5; ++i) rest();
  EXPECT_EQ(rest(), seconds(60));
  now_ += seconds(61);  // it was used for longer than it had rested
  EXPECT_EQ(rest(), seconds(2));
}

TEST_F(CandidatesTest, AFailureThatSeveralCallsTellCountsOnce) {
  Candidates candidates = Of("");
  candidates.LetRest("a", now_);
  candidates.LetRest("a", now_ + seconds(1));
  EXPECT_FALSE(candidates.Rests("a", now_ + seconds(2)));
}

TEST_F(CandidatesTest, AddressesOfOneNameComeInAnyOrder) {
  std::set<std::string> firsts;
  for (int i = 0; i < 200; ++i) firsts.insert(InOrder(Of("", {{"a", "n", 0}, {"b", "n", 0}, {"c", "", 1}})).front());
  EXPECT_EQ(firsts, (std::set<std::string>{"a", "b"}));
  const Candidates candidates = Of("", {{"a", "n", 0}, {"b", "n", 0}});
  EXPECT_THAT(Nearer(candidates, "a"), IsEmpty());
  EXPECT_THAT(Nearer(candidates, "b"), IsEmpty());
}

TEST_F(CandidatesTest, WhatANameLedToBeforeIsTheFurthest) {
  Candidates candidates = Of("here");
  candidates.SetZone("a", "here");
  candidates.SetZone("b", "there");
  candidates.LetRest("b", now_);
  candidates.Set({{"b", "", 0}, {"d", "", 0}});
  EXPECT_THAT(InOrder(candidates), ElementsAre("d", "b"));
  EXPECT_FALSE(candidates.LacksZone("b"));
  EXPECT_TRUE(candidates.IsNearer("b", "a"));
  EXPECT_FALSE(candidates.IsNearer("a", "b"));
  EXPECT_THAT(candidates.all(), SizeIs(2));
}

}  // namespace
}  // namespace refit

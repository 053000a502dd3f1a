#include "common/terminal/suggestion.h"

#include <gtest/gtest.h>

namespace refit {
namespace {

const std::vector<std::string> kCommands = {"push", "pull", "follow", "status", "versions", "--version", "--quiet"};

TEST(MeantTest, FindsWhatWasMeant) {
  EXPECT_EQ(Meant("psuh", kCommands), "push");
  EXPECT_EQ(Meant("pul", kCommands), "pull");
  EXPECT_EQ(Meant("folow", kCommands), "follow");
  EXPECT_EQ(Meant("statsus", kCommands), "status");
  EXPECT_EQ(Meant("--versoin", kCommands), "--version");
  EXPECT_EQ(Meant("push", kCommands), "push");
}

TEST(MeantTest, GuessesNothingFromAfar) {
  for (const char* word : {"", "p", "xy", "checkpoint", "--server", "frobnicate"}) {
    EXPECT_EQ(Meant(word, kCommands), "") << word;
  }
  EXPECT_EQ(Meant(std::string(1 << 20, 'p'), kCommands), "");
  EXPECT_EQ(Meant("push", {}), "");
}

}  // namespace
}  // namespace refit

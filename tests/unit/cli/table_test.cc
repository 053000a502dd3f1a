#include "client/cli/terminal/table.h"

#include <gtest/gtest.h>

#include "common/terminal/terminal.h"

namespace refit::cli {
namespace {

Table Workers() {
  Table table({{"worker"},
               {"state"},
               {"in use", Align::kRight},
               {"took", Align::kRight, Need::kIfWide},
               {"rate", Align::kRight, Need::kIfWide},
               {"empty", Align::kRight},
               {"note"}});
  table.AddRow({"a-long-host-name/12345", "installed, gone", "123456", "0.001 s", "2.66 GB/s", "", "NOT_FOUND: no"});
  table.AddRow({"b", "pulling", "7", "-", "-", "", ""});
  return table;
}

TEST(TableTest, HasAllWhereThereIsRoom) {
  const std::vector<std::string> lines = Workers().Lines(0, false);
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0], "worker                  state            in use     took       rate  note");
  EXPECT_EQ(lines[2], "b                       pulling               7        -          -");
}

TEST(TableTest, FitsTheTerminal) {
  for (size_t width = 36; width <= 90; ++width) {
    for (const std::string& line : Workers().Lines(width, false)) EXPECT_LE(DisplayWidth(line), width) << line;
  }
}

TEST(TableTest, NumbersAreLeftOutRatherThanShortenedAndNamed) {
  const std::vector<std::string> lines = Workers().Lines(50, false);
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0].find("took"), std::string::npos) << lines[0];
  EXPECT_NE(lines[1].find("123456"), std::string::npos) << lines[1];
  EXPECT_NE(lines[1].find("..."), std::string::npos) << lines[1];
  EXPECT_EQ(lines[3], "no room for: took, rate");
}

TEST(FactsTest, ValuesAreWrappedBelowThemselvesOnATerminal) {
  Facts facts;
  facts.Add("service", "one");
  facts.Add("adapters", "gemma4_moe, identity, qwen3_moe");
  EXPECT_EQ(facts.Lines(0, false),
            (std::vector<std::string>{"service   one", "adapters  gemma4_moe, identity, qwen3_moe"}));
  EXPECT_EQ(facts.Lines(32, false),
            (std::vector<std::string>{"service   one", "adapters  gemma4_moe, identity,\n          qwen3_moe"}));
}

}  // namespace
}  // namespace refit::cli

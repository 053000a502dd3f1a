#include "client/cli/options/tp_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <utility>

#include "test_paths.h"

namespace refit::cli {
namespace {

using ::testing::HasSubstr;

std::string Text(const std::vector<LayoutRule>& rules) {
  std::string text;
  for (const LayoutRule& rule : rules) text += std::to_string(rule.dimension) + "<" + rule.pattern + ">";
  return text;
}

TEST(TpRules, AreALineEach) {
  const auto rules = ParseTpRules(
      "# attention\n"
      "\n"
      "0 q_proj\\.weight$\n"
      "  \t1\t o_proj x  \r\n"
      "   # more\n"
      "2 a#b # behind a blank\n"
      "15 \\d",
      "f");
  ASSERT_TRUE(rules.ok()) << rules.status();
  EXPECT_EQ(Text(*rules), "0<q_proj\\.weight$>1<o_proj x>2<a#b>15<\\d>");
  for (const LayoutRule& rule : *rules) {
    EXPECT_EQ(rule.scope, LayoutRule::Scope::kAny);
    EXPECT_EQ(rule.split, Split::kBalanced);
    EXPECT_TRUE(rule.exclusive);
  }
}

TEST(TpRules, MistakesNameFileAndLine) {
  const std::pair<std::string, std::string> cases[] = {
      {"0 a\nq_proj\n", "dir/f.txt, line 2: expected a dimension from 0 to 15 and a pattern, got 'q_proj'"},
      {"-1 a", "line 1: expected a dimension from 0 to 15"},
      {"16 a", "line 1: expected a dimension from 0 to 15"},
      {"4294967296 a", "line 1: expected a dimension from 0 to 15"},
      {"0.5 a", "got '0.5'"},
      {"\n\n1", "line 3: expected a pattern behind dimension 1"},
      {"1 # all", "line 1: expected a pattern behind dimension 1"},
      {"0 a\n0 (", "line 2: "},
      {"0 (?=x)", "line 1: "},
      {"", "dir/f.txt: has no rules"},
      {"# nothing\n\n", "dir/f.txt: has no rules"},
  };
  for (const auto& [text, message] : cases) {
    const absl::Status status = ParseTpRules(text, "dir/f.txt").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << text;
  }
}

TEST(TpRules, AreReadFromFiles) {
  const std::string path = testing::TempDir() + "refit_tp_rules.txt";
  std::ofstream(path) << "\xEF\xBB\xBF"
                      << "0 a\r\n1 b";  // as an editor on Windows may write it
  const auto rules = ReadTpRules(path);
  ASSERT_TRUE(rules.ok()) << rules.status();
  EXPECT_EQ(Text(*rules), "0<a>1<b>");
  std::remove(path.c_str());
  const absl::Status missing = ReadTpRules(path).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr(path));
  const absl::Status folder = ReadTpRules(testing::TempDir()).status();
  EXPECT_FALSE(folder.ok());
  EXPECT_THAT(std::string(folder.message()), HasSubstr("directory"));
  // The mark does not make room for a text that is too long, which would be read in part.
  std::ofstream(path) << "\xEF\xBB\xBF"
                      << "0 a\n"
                      << std::string(size_t{1} << 20, '#');
  EXPECT_EQ(ReadTpRules(path).status().code(), absl::StatusCode::kInvalidArgument);
  std::remove(path.c_str());
  EXPECT_EQ(ReadTpRules("/dev/zero").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TpRules, TheExampleIsGood) {
  const auto rules = ReadTpRules(std::string(REFIT_TEST_DATA) + "/../../deploy/examples/gemma4_tp_rules.txt");
  ASSERT_TRUE(rules.ok()) << rules.status();
  EXPECT_EQ(rules->size(), 7u);
}

}  // namespace
}  // namespace refit::cli

#include "common/adapters/python_regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

namespace refit {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<const PythonRegex> Compiled(const std::string& pattern) {
  absl::StatusOr<std::shared_ptr<const PythonRegex>> regex = PythonRegex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << pattern << ": " << regex.status();
  return regex.ok() ? *regex : nullptr;
}

struct Meaning {
  const char* pattern;
  const char* text;
  bool match;   // re.match(pattern, text) is not None, as CPython 3.11 says
  bool search;  // re.search(pattern, text) is not None
};

class PythonMeaning : public ::testing::TestWithParam<Meaning> {};

TEST_P(PythonMeaning, IsKept) {
  const Meaning& meaning = GetParam();
  const auto regex = Compiled(meaning.pattern);
  ASSERT_NE(regex, nullptr);
  EXPECT_EQ(regex->Match(meaning.text), meaning.match) << meaning.pattern << " on " << meaning.text;
  EXPECT_EQ(regex->Search(meaning.text), meaning.search) << meaning.pattern << " on " << meaning.text;
}

INSTANTIATE_TEST_SUITE_P(
    Anchors, PythonMeaning,
    ::testing::Values(Meaning{"layers", "model.layers.0", false, true}, Meaning{"model", "model.layers.0", true, true},
                      Meaning{"x|layers", "model.layers.0", false, true}, Meaning{"", "anything", true, true},  //
                      Meaning{"a$", "a", true, true},                                                           //
                      Meaning{"a$", "a\n", true, true},                                                         //
                      Meaning{"a$", "a\n\n", false, false}, Meaning{"a$", "a\nb", false, false},
                      Meaning{"(?m)a$", "a\nb", true, true}, Meaning{"(?m:a$)", "a\nb", true, true},
                      Meaning{"(?m:a)$", "a\nb", false, false}, Meaning{"(?:(?m:a)b)$", "ab\nc", false, false},
                      Meaning{"a\\Z", "a", true, true},        //
                      Meaning{"a\\Z", "a\n", false, false},    //
                      Meaning{"[$]", "a$", false, true},       //
                      Meaning{"\\$", "$", true, true},         //
                      Meaning{"\\Aa", "ba", false, false},     //
                      Meaning{"^a", "ba", false, false},       //
                      Meaning{".*b", "a\nb", false, true},     //
                      Meaning{"(?s).*b", "a\nb", true, true},  //
                      Meaning{"(?i)LAYERS", "layers", true, true}));

INSTANTIATE_TEST_SUITE_P(
    Classes, PythonMeaning,
    ::testing::Values(Meaning{"\\d+$", "12", true, true}, Meaning{"\\d+$", "\u0663", true, true},
                      Meaning{"[\\d.]+$", "1.\u0663", true, true}, Meaning{"\\d", "\u00b2", false, false},
                      Meaning{"\\D", "\u0663", false, false}, Meaning{"[^\\d]", "\u0663", false, false},
                      Meaning{"[\\D]", "x", true, true}, Meaning{"\\w+$", "na\u00efve_1", true, true},
                      Meaning{"\\w", "\u00b2", true, true}, Meaning{"[\\w-]+$", "a-b", true, true},
                      Meaning{"[\\w.]+$", "a.\u4e2d", true, true}, Meaning{"\\W", "_", false, false},
                      Meaning{"\\W", "-", true, true}, Meaning{"[\\W]", "_", false, false},
                      Meaning{"[\\W]", "\u203f", true, true}, Meaning{"[^\\W\\d_]+$", "ab", true, true},
                      Meaning{"[^\\W\\d_]", "_", false, false}, Meaning{"\\s", "\u00a0", true, true},
                      Meaning{"\\s", "\x1c", true, true}, Meaning{"\\s", "\u200b", false, false},
                      Meaning{"[\\s]", "\u3000", true, true}, Meaning{"\\S", "\u2003", false, false},
                      Meaning{"[\\S]", "\u2003", false, false}, Meaning{"[\\S]", "\u200b", true, true},
                      Meaning{"[]a]", "]", true, true}, Meaning{"[^]a]", "]", false, false},
                      Meaning{"[[:alpha:]", "[", true, true}, Meaning{"[[:alpha:]", "z", false, false},
                      Meaning{"[\\b]", "\b", true, true}, Meaning{"\\ba", "a", true, true}));

INSTANTIATE_TEST_SUITE_P(Repetitions, PythonMeaning,
                         ::testing::Values(Meaning{"a{,2}$", "aa", true, true}, Meaning{"a{,2}b", "aaab", false, true},
                                           Meaning{"a{,}$", "aaaa", true, true},  //
                                           Meaning{"a{2,}", "a", false, false},   //
                                           Meaning{"a{x}", "a{x}", true, true},   //
                                           Meaning{"[{,2}]+$", "{,2}", true, true},
                                           Meaning{"a{,x}", "a{,x}", true, true}));

INSTANTIATE_TEST_SUITE_P(Escapes, PythonMeaning,
                         ::testing::Values(Meaning{"\\x41", "A", true, true}, Meaning{"\\u0041", "A", true, true},
                                           Meaning{"\\U0001F600", "\U0001F600", true, true},
                                           Meaning{"\\101", "A", true, true}, Meaning{"[\\101]", "A", true, true},
                                           Meaning{"\\.", "x", false, false}, Meaning{"\\\\d", "\\d", true, true},
                                           Meaning{"(?P<n>a)", "a", true, true},
                                           Meaning{"\\\u00e9", "\u00e9", true, true},
                                           Meaning{"\\t", "\t", true, true}));

INSTANTIATE_TEST_SUITE_P(Excludes, PythonMeaning,
                         ::testing::Values(Meaning{".*_extra_state.*", "a.b._extra_state0", true, true},
                                           Meaning{".*_extra_state.*", "a.extra_state", false, false},
                                           Meaning{".*per_expert_scale$", "l.router.per_expert_scale", true, true},
                                           Meaning{"^.*mtp\\.layers\\..*$", "mtp.layers.0.x", true, true}));

class Refused : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(Refused, AsInvalidArgumentThatSaysWhy) {
  const auto& [pattern, why] = GetParam();
  const absl::Status status = PythonRegex::Compile(pattern).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << pattern;
  EXPECT_THAT(std::string(status.message()), HasSubstr(why));
}

INSTANTIATE_TEST_SUITE_P(
    Patterns, Refused,
    ::testing::Values(std::pair{"a(?=b)", "look-around is not supported"}, std::pair{"(?!a)b", "look-around"},
                      std::pair{"(?<=a)b", "look-around"}, std::pair{"(?<!a)b", "look-around"},
                      std::pair{"(a)\\1", "back-references are not supported"},
                      std::pair{"(?P<n>a)(?P=n)", "back-references"}, std::pair{"(a)\\12", "back-references"},
                      std::pair{"(", "missing"}, std::pair{"a)", "unexpected"}, std::pair{"[a", "missing"},
                      std::pair{"*a", "repetition"}, std::pair{"a**", "repetition"}, std::pair{"[z-a]", "range"},
                      std::pair{"a\\", "trailing backslash"}, std::pair{"\\pL", "bad escape"},
                      std::pair{"\\C", "bad escape"}, std::pair{"\\Qa", "bad escape"}, std::pair{"[\\Z]", "bad escape"},
                      std::pair{"\\x4", "incomplete escape"}, std::pair{"\\uD8", "incomplete escape"},
                      std::pair{"(?U)a", "flag"}, std::pair{"(?>a)b", "invalid"}, std::pair{"a{2000}", "repetition"},
                      std::pair{"\xff", "UTF-8"}));

TEST(PythonRegex, RefusesPatternsThatAreTooLong) {
  EXPECT_TRUE(PythonRegex::Compile(std::string(PythonRegex::kMaxPatternBytes, 'a')).ok());
  EXPECT_EQ(PythonRegex::Compile(std::string(PythonRegex::kMaxPatternBytes + 1, 'a')).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(PythonRegex, RefusesPatternsThatGrowTooLargeWhenCompiled) {
  const absl::Status status = PythonRegex::Compile("((\\w{30}){30}){30}").status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("\\\\w{30}"));
}

TEST(PythonRegex, BearsDeepNesting) {
  const std::string deep = std::string(2000, '(') + "a" + std::string(2000, ')');
  EXPECT_TRUE(Compiled(deep)->Match("a"));
  EXPECT_FALSE(PythonRegex::Compile(std::string(4000, '(')).ok());
}

TEST(PythonRegex, CatastrophicPatternsFinishAtOnce) {
  const std::string text = std::string(20000, 'a') + "!";
  const auto start = std::chrono::steady_clock::now();
  for (const char* pattern : {"(a+)+$", "(a|aa)+$", "(a*)*b", "(?:a?){500}a{500}$", "(.*)*x$", "(\\w+\\s?)*$"}) {
    const auto regex = Compiled(pattern);
    ASSERT_NE(regex, nullptr);
    EXPECT_FALSE(regex->Match(text)) << pattern;
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(PythonRegex, KeepsItsPattern) { EXPECT_EQ(Compiled("\\d$")->pattern(), "\\d$"); }

}  // namespace
}  // namespace refit

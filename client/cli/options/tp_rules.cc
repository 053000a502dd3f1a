#include "client/cli/options/tp_rules.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/adapters/layout_rules.h"
#include "common/limits/text_file.h"
#include "refit/shape.h"
#include "refit/tensor_spec.h"

namespace refit::cli {
namespace {

constexpr absl::string_view kBlanks = " \t";

absl::string_view WithoutComment(absl::string_view line) {
  for (size_t at = line.find('#'); at != absl::string_view::npos; at = line.find('#', at + 1)) {
    if (at == 0 || absl::StrContains(kBlanks, line[at - 1])) return line.substr(0, at);
  }
  return line;
}

// Parses a line that is not empty.
absl::StatusOr<LayoutRule> ParseRule(absl::string_view line) {
  const size_t blank = line.find_first_of(kBlanks);
  const absl::string_view dimension = line.substr(0, blank);
  LayoutRule rule;
  rule.exclusive = true;
  if (!absl::SimpleAtoi(dimension, &rule.dimension) || rule.dimension >= kMaxRank) {
    return absl::InvalidArgumentError(absl::StrCat("expected a dimension from 0 to ", kMaxRank - 1,
                                                   " and a pattern, got '", Printable(dimension), "'"));
  }
  if (blank == absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("expected a pattern behind dimension ", rule.dimension));
  }
  rule.pattern = std::string(absl::StripAsciiWhitespace(line.substr(blank)));
  const absl::StatusOr<LayoutRules> compiled = LayoutRules::Compile({rule});
  if (!compiled.ok()) return compiled.status();
  return rule;
}

}  // namespace

absl::StatusOr<std::vector<LayoutRule>> ParseTpRules(absl::string_view text, const std::string& path) {
  std::vector<LayoutRule> rules;
  size_t number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(WithoutComment(line));
    if (line.empty()) continue;
    absl::StatusOr<LayoutRule> rule = ParseRule(line);
    if (!rule.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(Printable(path), ", line ", number, ": ", rule.status().message()));
    }
    rules.push_back(*std::move(rule));
  }
  if (rules.empty()) return absl::InvalidArgumentError(absl::StrCat(Printable(path), ": has no rules"));
  return rules;
}

absl::StatusOr<std::vector<LayoutRule>> ReadTpRules(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadTextFile(path);
  if (!text.ok()) return text.status();
  return ParseTpRules(*text, path);
}

}  // namespace refit::cli

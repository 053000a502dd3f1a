#include "common/adapters/name_rewriter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace refit {
namespace {

constexpr absl::string_view kExpert = "expert";

bool IsName(absl::string_view text) {
  return !text.empty() && absl::ascii_isalpha(text[0]) &&
         std::all_of(text.begin(), text.end(), [](char c) { return absl::ascii_isalnum(c) || c == '_'; });
}

// Whether it begins with \1 to \9.
bool IsGroup(absl::string_view text) { return text.size() > 1 && text[0] == '\\' && text[1] >= '1' && text[1] <= '9'; }

absl::StatusOr<std::string> ExpandWith(absl::string_view text, const Variables& variables, bool quoted) {
  std::string out;
  while (true) {
    const size_t open = text.find('{');
    const size_t close = text.find('}', open);
    if (close == absl::string_view::npos) break;
    const absl::string_view name = text.substr(open + 1, close - open - 1);
    absl::StrAppend(&out, text.substr(0, open));
    text.remove_prefix(close + 1);
    if (!IsName(name) || name == kExpert) {
      absl::StrAppend(&out, "{", name, "}");
      continue;
    }
    const auto found = variables.find(std::string(name));
    if (found == variables.end()) {
      return absl::InvalidArgumentError(absl::StrCat("{", name, "} stands for nothing: no option or variable has it"));
    }
    absl::StrAppend(&out, quoted ? QuoteRegex(found->second) : found->second);
  }
  absl::StrAppend(&out, text);
  return out;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const PythonRegex>> AnyOf(const std::vector<std::string>& patterns) {
  if (patterns.empty()) return nullptr;
  for (const std::string& pattern : patterns) {
    if (absl::Status status = PythonRegex::Compile(pattern).status(); !status.ok()) return status;
  }
  return PythonRegex::Compile(absl::StrCat("(?:", absl::StrJoin(patterns, ")|(?:"), ")"));
}

absl::StatusOr<std::string> Expand(absl::string_view text, const Variables& variables) {
  return ExpandWith(text, variables, /*quoted=*/false);
}

absl::StatusOr<NameFinder> NameFinder::Compile(const NameMatcher& matcher, const Variables& variables) {
  NameFinder finder;
  finder.kind_ = matcher.kind;
  const bool is_regex = matcher.kind == NameMatcher::Kind::kRegex;
  absl::StatusOr<std::string> text = ExpandWith(matcher.text, variables, is_regex);
  if (!text.ok()) return text.status();
  finder.text_ = *std::move(text);
  if (!is_regex) return finder;
  absl::StatusOr<std::shared_ptr<const PythonRegex>> regex = PythonRegex::Compile(finder.text_);
  if (!regex.ok()) return regex.status();
  finder.regex_ = *std::move(regex);
  return finder;
}

bool NameFinder::Matches(absl::string_view name) const {
  switch (kind_) {
    case NameMatcher::Kind::kPrefix:
      return absl::StartsWith(name, text_);
    case NameMatcher::Kind::kSuffix:
      return absl::EndsWith(name, text_);
    case NameMatcher::Kind::kContains:
      return absl::StrContains(name, text_);
    case NameMatcher::Kind::kExact:
      return name == text_;
    case NameMatcher::Kind::kRegex:
      return regex_->Search(name);
  }
  return false;
}

std::optional<NameFinder::Found> NameFinder::Find(absl::string_view name) const {
  if (kind_ != NameMatcher::Kind::kRegex) return Matches(name) ? std::optional(Found{text_, {}}) : std::nullopt;
  std::vector<absl::string_view> groups = regex_->Find(name);
  if (groups.empty()) return std::nullopt;
  return Found{groups.front(), {groups.begin() + 1, groups.end()}};
}

std::string NameFinder::Replace(absl::string_view name, const Found& found, absl::string_view by) const {
  switch (kind_) {
    case NameMatcher::Kind::kPrefix:
      return absl::StrCat(by, name.substr(found.text.size()));
    case NameMatcher::Kind::kSuffix:
      return absl::StrCat(name.substr(0, name.size() - found.text.size()), by);
    case NameMatcher::Kind::kExact:
      return std::string(by);
    case NameMatcher::Kind::kContains:
    case NameMatcher::Kind::kRegex:
      break;
  }
  if (found.text.empty()) return std::string(name);
  return absl::StrReplaceAll(name, {{found.text, by}});
}

int NameFinder::groups() const { return regex_ == nullptr ? 0 : regex_->groups(); }

std::string WithGroups(absl::string_view to, const std::vector<absl::string_view>& groups) {
  std::string out;
  for (size_t i = 0; i < to.size(); ++i) {
    if (!IsGroup(to.substr(i))) {
      out.push_back(to[i]);
      continue;
    }
    absl::StrAppend(&out, groups[static_cast<size_t>(to[++i] - '1')]);
  }
  return out;
}

int LargestGroup(absl::string_view to) {
  int largest = 0;
  for (size_t i = 0; i + 1 < to.size(); ++i) {
    if (IsGroup(to.substr(i))) largest = std::max(largest, to[i + 1] - '0');
  }
  return largest;
}

}  // namespace refit

#include "common/terminal/help_formatter.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/terminal/terminal.h"
#include "common/terminal/wrap.h"

namespace refit {
namespace {

constexpr size_t kWidest = 80;
constexpr size_t kNarrowest = 40;
// The column at which explanations begin; kNarrowExplanationColumn on terminals narrower than kRoomy.
constexpr size_t kExplanationColumn = 28;
constexpr size_t kNarrowExplanationColumn = 8;
constexpr size_t kRoomy = 72;

size_t HelpWidth() {
  const int columns = Width(stdout);
  return columns == 0 ? kWidest : std::clamp(static_cast<size_t>(columns), kNarrowest, kWidest);
}

// `left`, with `text` wrapped beside it, or below it if `left` is too long.
std::string TwoColumns(const std::string& left, const std::string& text) {
  const size_t width = HelpWidth();
  const size_t begin = width < kRoomy ? kNarrowExplanationColumn : kExplanationColumn;
  const size_t taken = left.size() + 2;
  const std::string gap =
      taken + 2 > begin ? absl::StrCat("\n", std::string(begin, ' ')) : std::string(begin - taken, ' ');
  return absl::StrCat("  ", left, gap, Wrap(text, width, begin, begin), "\n");
}

std::string WrapCommand(absl::string_view indent, absl::string_view command, size_t width) {
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(command, absl::MaxSplits("  # ", 1));
  std::string out;
  if (!parts.second.empty()) absl::StrAppend(&out, indent, "# ", parts.second, "\n");
  const absl::string_view bare = absl::StripTrailingAsciiWhitespace(parts.first);
  return absl::StrCat(out, indent, Wrap(bare, width, indent.size() + 2, indent.size(), " \\"));
}

std::string WrapLine(absl::string_view line, size_t width) {
  if (line.size() <= width) return std::string(line);
  const absl::string_view text = absl::StripLeadingAsciiWhitespace(line);
  const absl::string_view indent = line.substr(0, line.size() - text.size());
  if (indent.empty()) return Wrap(text, width, 0, 0);
  const size_t gap = text.find("  ");
  if (absl::StartsWith(text, "refit") || gap == absl::string_view::npos) return WrapCommand(indent, text, width);
  const size_t right = indent.size() + text.find_first_not_of(' ', gap);
  return absl::StrCat(line.substr(0, right), Wrap(line.substr(right), width, right, right));
}

}  // namespace

std::string WrapHelp(absl::string_view text, size_t width) {
  std::string out;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) absl::StrAppend(&out, WrapLine(line, width), "\n");
  out.pop_back();
  return out;
}

std::string HelpFormatter::make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const {
  return absl::StrReplaceAll(CLI::Formatter::make_help(app, std::move(name), mode), {{"\n\n\n", "\n\n"}});
}

std::string HelpFormatter::make_description(const CLI::App* app) const {
  return WrapHelp(CLI::Formatter::make_description(app), HelpWidth());
}

std::string HelpFormatter::make_footer(const CLI::App* app) const {
  return WrapHelp(CLI::Formatter::make_footer(app), HelpWidth());
}

std::string HelpFormatter::make_option(const CLI::Option* option, bool is_positional) const {
  const std::string name = is_positional ? option->get_name(true) : option->get_name(false, true);
  const bool has_text = !option->get_option_text().empty();
  const std::string value = has_text                                        ? option->get_option_text()
                            : option->get_type_size() == 0 || is_positional ? ""
                                                                            : option->get_type_name();
  std::string text = option->get_description();
  if (!option->get_default_str().empty()) absl::StrAppend(&text, " [", option->get_default_str(), "]");
  if (option->get_required() && !is_positional) absl::StrAppend(&text, " (required)");
  return TwoColumns(value.empty() ? name : absl::StrCat(name, " ", value), text);
}

std::string HelpFormatter::make_subcommand(const CLI::App* command) const {
  return TwoColumns(command->get_name(), command->get_description());
}

}  // namespace refit

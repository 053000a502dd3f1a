#include "client/cli/help_formatter.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace refit::cli {
namespace {

constexpr size_t kExplanationColumn = 32;
constexpr size_t kLineColumns = 100;

// `left`, and `text` wrapped beside it, or below it where `left` is too long.
std::string TwoColumns(const std::string& left, const std::string& text) {
  std::string out = absl::StrCat("  ", left);
  size_t column = out.size();
  const auto new_line = [&] {
    absl::StrAppend(&out, "\n", std::string(kExplanationColumn, ' '));
    column = kExplanationColumn;
  };
  if (column + 2 > kExplanationColumn) {
    new_line();
  } else {
    out.append(kExplanationColumn - column, ' ');
    column = kExplanationColumn;
  }
  bool first = true;
  for (const absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    if (!first && column + 1 + word.size() > kLineColumns) {
      new_line();
    } else if (!first) {
      out += ' ';
      ++column;
    }
    absl::StrAppend(&out, word);
    column += word.size();
    first = false;
  }
  return out + "\n";
}

}  // namespace

std::string HelpFormatter::make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const {
  return absl::StrReplaceAll(CLI::Formatter::make_help(app, std::move(name), mode), {{"\n\n\n", "\n\n"}});
}

std::string HelpFormatter::make_option(const CLI::Option* option, bool is_positional) const {
  const std::string name = is_positional ? option->get_name(true) : option->get_name(false, true);
  const std::string type = option->get_type_size() == 0 || is_positional ? "" : option->get_type_name();
  std::string text = option->get_description();
  if (!option->get_default_str().empty()) absl::StrAppend(&text, " [", option->get_default_str(), "]");
  if (option->get_required() && !is_positional) absl::StrAppend(&text, " (required)");
  return TwoColumns(type.empty() ? name : absl::StrCat(name, " ", type), text);
}

std::string HelpFormatter::make_subcommand(const CLI::App* command) const {
  return TwoColumns(command->get_name(), command->get_description());
}

}  // namespace refit::cli

// Formats the output of --help.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace refit {

// Prints options with their defaults, and explanations beside them (below them on a narrow terminal). One empty line
// separates groups. Lines have at most 80 columns, and fit the terminal. Each line of a description or footer is a
// paragraph; indented lines are commands and tables.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override;
  std::string make_description(const CLI::App* app) const override;
  std::string make_footer(const CLI::App* app) const override;
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_subcommand(const CLI::App* command) const override;
};

// Wraps `text`, line by line, to `width` columns. Lines without indent are wrapped as paragraphs. An indented line with
// a gap of two spaces is a table row: its right half is wrapped below itself. A long indented command continues after a
// backslash. A comment after a command ("  # ...") moves to the line before it.
std::string WrapHelp(absl::string_view text, size_t width);

}  // namespace refit

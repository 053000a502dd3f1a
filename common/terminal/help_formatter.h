// How --help looks.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace refit {

// Options with their defaults, explanations beside them (below them on a narrow terminal), groups with one empty line
// between, within the terminal's width and 80 columns. Descriptions and footers have a line for each paragraph; their
// indented lines are commands and tables.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override;
  std::string make_description(const CLI::App* app) const override;
  std::string make_footer(const CLI::App* app) const override;
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_subcommand(const CLI::App* command) const override;
};

// `text`, line by line, within `width` columns. A paragraph is wrapped; so is the right half of an indented line with a
// gap of two spaces, below itself; an indented command goes on behind a backslash, and what a comment says of it
// ("  # ...") goes before it.
std::string WrapHelp(absl::string_view text, size_t width);

}  // namespace refit

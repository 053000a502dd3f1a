// How --help looks.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace refit::cli {

// Options with their defaults, explanations beside them within 100 columns, groups with one empty line between.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override;
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_subcommand(const CLI::App* command) const override;
};

}  // namespace refit::cli

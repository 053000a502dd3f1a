// What can be typed after a program's name, read from its CLI11 definition. Completion scripts are made from it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace refit {

// A value that an option or a command takes.
struct ValueWords {
  std::string placeholder;           // "FILE"; empty: it takes none
  std::vector<std::string> choices;  // all values that it may have, if they are few
  bool is_path = false;
};

struct OptionWords {
  std::vector<std::string> names;  // "-s", "--server"
  std::string summary;             // a few words of one line
  ValueWords value;
};

struct CommandWords {
  std::string name;
  std::string summary;
  std::vector<OptionWords> options;
  ValueWords argument;  // what it takes without a flag
  std::vector<CommandWords> commands;
};

CommandWords WordsOf(const CLI::App& app);

}  // namespace refit

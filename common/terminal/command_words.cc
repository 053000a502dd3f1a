#include "common/terminal/command_words.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace refit {
namespace {

// The beginning of a description, up to the first end of a clause.
std::string Summary(absl::string_view text) {
  constexpr size_t kLongest = 72;
  for (const absl::string_view end : {"\n", ". ", "; ", " (", " ["}) text = text.substr(0, text.find(end));
  if (text.size() <= kLongest) return std::string(text);
  return absl::StrCat(text.substr(0, text.substr(0, kLongest - 3).rfind(' ')), "...");
}

ValueWords ValueOf(const CLI::Option& option) {
  ValueWords value;
  if (option.get_items_expected_max() == 0) return value;  // a flag
  const std::string& text = option.get_option_text();
  value.placeholder = text.empty() ? option.get_type_name() : text;
  if (value.placeholder.empty()) value.placeholder = "VALUE";
  for (const absl::string_view kind : {"FILE", "DIR", "PATH", ".safetensors"}) {
    if (absl::StrContains(value.placeholder, kind)) value.is_path = true;
  }
  if (value.is_path || !absl::StrContains(value.placeholder, '|')) return value;
  for (const absl::string_view choice : absl::StrSplit(value.placeholder, '|')) {
    if (choice.size() > 1) value.choices.emplace_back(choice);  // not the N of "N|latest"
  }
  return value;
}

}  // namespace

CommandWords WordsOf(const CLI::App& app) {
  CommandWords words{.name = app.get_name(), .summary = Summary(app.get_description())};
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;  // hidden
    if (option->get_positional()) {
      words.argument = ValueOf(*option);
      continue;
    }
    OptionWords described{.summary = Summary(option->get_description()), .value = ValueOf(*option)};
    for (const std::string& name : option->get_snames()) described.names.push_back(absl::StrCat("-", name));
    for (const std::string& name : option->get_lnames()) described.names.push_back(absl::StrCat("--", name));
    words.options.push_back(described);
  }
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    words.commands.push_back(WordsOf(*command));
  }
  return words;
}

}  // namespace refit

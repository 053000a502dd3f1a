#include "common/terminal/completion.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"

namespace refit {
namespace {

// A shell's function for this program: _refit_server.
std::string FunctionOf(const CommandWords& program) {
  return absl::StrCat("_", absl::StrReplaceAll(program.name, {{"-", "_"}}));
}

std::vector<std::string> FlagsOf(const CommandWords& command) {
  std::vector<std::string> flags;
  for (const OptionWords& option : command.options) {
    flags.insert(flags.end(), option.names.begin(), option.names.end());
  }
  return flags;
}

std::vector<std::string> NamesOf(const std::vector<CommandWords>& commands) {
  std::vector<std::string> names;
  names.reserve(commands.size());
  for (const CommandWords& command : commands) names.push_back(command.name);
  return names;
}

std::string Quoted(absl::string_view text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

// --- bash

std::string BashValue(const ValueWords& value) {
  if (value.is_path) return "_files";
  return absl::StrCat("_words ", Quoted(absl::StrJoin(value.choices, " ")));
}

// Cases "command --flag" for the values of a command's flags.
std::string BashValues(const std::string& command, const std::vector<OptionWords>& options) {
  std::string out;
  for (const OptionWords& option : options) {
    if (option.value.placeholder.empty()) continue;
    const auto one = [&command](std::string* text, const std::string& name) {
      absl::StrAppend(text, "'", command, " ", name, "'");
    };
    absl::StrAppend(&out, "    ", absl::StrJoin(option.names, " | ", one), ") ", BashValue(option.value),
                    "; return ;;\n");
  }
  return out;
}

std::string BashWords(const CommandWords& command, const std::string& name) {
  std::vector<std::string> words = NamesOf(command.commands);
  for (std::string& flag : FlagsOf(command)) words.push_back(std::move(flag));
  std::string rest;
  if (!command.argument.placeholder.empty()) {
    rest = absl::StrCat(" [[ $current == -* ]] || ", BashValue(command.argument), ";");
  }
  return absl::StrCat("    '", name, "') _words ", Quoted(absl::StrJoin(words, " ")), ";", rest, " ;;\n");
}

// --- zsh

// In the specifications of _arguments.
std::string ZshText(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"[", "\\["}, {"]", "\\]"}, {":", "\\:"}, {"'", "'\\''"}});
}

std::string ZshValue(const ValueWords& value) {
  if (value.placeholder.empty()) return "";
  const std::string action = value.is_path           ? "_files"
                             : value.choices.empty() ? ""
                                                     : absl::StrCat("(", absl::StrJoin(value.choices, " "), ")");
  return absl::StrCat(":", ZshText(value.placeholder), ":", action);
}

std::string ZshArguments(const CommandWords& command, absl::string_view indent) {
  std::string out = absl::StrCat(indent, "_arguments -s");
  for (const OptionWords& option : command.options) {
    const std::string text = absl::StrCat("[", ZshText(option.summary), "]", ZshValue(option.value));
    for (const std::string& name : option.names) {
      absl::StrAppend(&out, " \\\n", indent, "  '*", name,
                      option.value.placeholder.empty() ? ""
                      : name[1] == '-'                 ? "="
                                                       : "+",
                      text, "'");
    }
  }
  if (!command.argument.placeholder.empty()) {
    absl::StrAppend(&out, " \\\n", indent, "  '*", ZshValue(command.argument), "'");
  }
  return absl::StrCat(out, "\n");
}

std::string ZshCommands(const CommandWords& program) {
  std::string out = "  local -a commands=(\n";
  for (const CommandWords& command : program.commands) {
    absl::StrAppend(&out, "    '", command.name, ":", ZshText(command.summary), "'\n");
  }
  absl::StrAppend(&out, "  )\n  if [[ $words[2] == -* ]]; then\n", ZshArguments({.options = program.options}, "    "),
                  "    return\n  elif ((CURRENT == 2)); then\n    _describe command commands\n    return\n  fi\n"
                  "  local command=$words[2]\n  shift words\n  ((CURRENT--))\n  case $command in\n");
  for (const CommandWords& command : program.commands) {
    absl::StrAppend(&out, "    ", command.name, ")\n", ZshArguments(command, "      "), "      ;;\n");
  }
  return absl::StrCat(out, "  esac\n");
}

// --- fish

std::string FishText(absl::string_view text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
}

std::string FishValue(const ValueWords& value) {
  if (value.is_path) return " -r -F";
  if (value.placeholder.empty()) return "";
  return absl::StrCat(" -x", value.choices.empty() ? "" : " -a ",
                      value.choices.empty() ? "" : FishText(absl::StrJoin(value.choices, " ")));
}

std::string FishOptions(const CommandWords& command, const std::string& begin) {
  std::string out;
  for (const OptionWords& option : command.options) {
    absl::StrAppend(&out, begin);
    for (const std::string& name : option.names) {
      absl::StrAppend(&out, name[1] == '-' ? " -l " : " -s ", name.substr(name[1] == '-' ? 2 : 1));
    }
    absl::StrAppend(&out, FishValue(option.value), " -d ", FishText(option.summary), "\n");
  }
  if (command.argument.is_path) absl::StrAppend(&out, begin, " -F\n");
  return out;
}

}  // namespace

std::string BashCompletion(const CommandWords& program) {
  const std::string function = FunctionOf(program);
  std::string values = BashValues("", program.options);
  std::string words = BashWords(program, "");
  for (const CommandWords& command : program.commands) {
    absl::StrAppend(&values, BashValues(command.name, command.options));
    absl::StrAppend(&words, BashWords(command, command.name));
  }
  const std::string names = program.commands.empty() ? "''" : absl::StrJoin(NamesOf(program.commands), " | ");
  const std::string body = absl::StrCat(
      "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command= word\n"
      "  # bash makes three words of --flag=value.\n"
      "  if [[ $current == = ]]; then current=\n"
      "  elif [[ $previous == = ]]; then previous=${COMP_WORDS[COMP_CWORD - 2]}; fi\n"
      "  _words() { mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -W \"$1\" -- \"$current\"); }\n"
      "  _files() { compopt -o filenames 2>/dev/null; mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "
      "\"$current\"); }\n"
      "  COMPREPLY=()\n"
      "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
      "    case $word in ",
      names,
      ") command=$word; break ;; esac\n"
      "  done\n"
      "  case \"$command $previous\" in\n",
      values,
      "  esac\n"
      "  case $command in\n",
      words, "  esac\n");
  return absl::StrCat("# bash completion for ", program.name, "\n", function, "() {\n",
                      absl::StrReplaceAll(body, {{"_words", function + "_words"}, {"_files", function + "_files"}}),
                      "}\ncomplete -F ", function, " ", program.name, "\n");
}

std::string ZshCompletion(const CommandWords& program) {
  const std::string function = FunctionOf(program);
  return absl::StrCat("#compdef ", program.name, "\n", function, "() {\n",
                      program.commands.empty() ? ZshArguments(program, "  ") : ZshCommands(program),
                      "}\n# Loaded by zsh itself, or sourced.\nif [[ $funcstack[1] == ", function, " ]]; then ",
                      function, " \"$@\"; else compdef ", function, " ", program.name, "; fi\n");
}

std::string FishCompletion(const CommandWords& program) {
  const std::string begin = absl::StrCat("complete -c ", program.name);
  std::string out = absl::StrCat("# fish completion for ", program.name, "\n", begin, " -f\n");
  if (program.commands.empty()) return absl::StrCat(out, FishOptions(program, begin));
  const std::string first = absl::StrCat(begin, " -n __fish_use_subcommand");
  absl::StrAppend(&out, FishOptions(program, first));
  for (const CommandWords& command : program.commands) {
    absl::StrAppend(&out, first, " -a ", command.name, " -d ", FishText(command.summary), "\n");
    const std::string later = absl::StrCat(begin, " -n '__fish_seen_subcommand_from ", command.name, "'");
    absl::StrAppend(&out, FishOptions(command, later));
  }
  return out;
}

}  // namespace refit

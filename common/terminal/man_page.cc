#include "common/terminal/man_page.h"

#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace refit {
namespace {

// Text in which nothing is a request of troff.
std::string Plain(absl::string_view text) {
  const std::string escaped =
      absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}, {"`", "\\(ga"}, {"^", "\\(ha"}, {"~", "\\(ti"}});
  return absl::StartsWith(escaped, ".") || absl::StartsWith(escaped, "'") ? absl::StrCat("\\&", escaped) : escaped;
}

// Lines as WrapHelp takes them: paragraphs, and indented commands and tables.
std::string Text(absl::string_view text) {
  std::string out;
  bool is_table = false;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const bool is_indented = absl::StartsWith(line, " ");
    if (is_indented != is_table) absl::StrAppend(&out, is_indented ? ".PP\n.nf\n" : ".fi\n");
    is_table = is_indented;
    if (!line.empty()) absl::StrAppend(&out, is_indented ? "" : ".PP\n", Plain(line), "\n");
  }
  return absl::StrCat(out, is_table ? ".fi\n" : "");
}

std::string OptionText(const CLI::Option& option) {
  const bool is_argument = option.get_positional();
  const std::string value = is_argument || option.get_type_size() == 0 ? ""
                            : option.get_option_text().empty()         ? option.get_type_name()
                                                                       : option.get_option_text();
  std::string text = option.get_description();
  if (!option.get_default_str().empty()) absl::StrAppend(&text, " [", option.get_default_str(), "]");
  const std::string name = is_argument ? option.get_name(true) : option.get_name(false, true);
  return absl::StrCat(".TP\n\\fB", Plain(absl::StrReplaceAll(name, {{",", ", "}})), "\\fR",
                      value.empty() ? "" : absl::StrCat(" \\fI", Plain(value), "\\fR"), "\n",
                      Plain(absl::StrReplaceAll(text, {{"\n", " "}})), "\n");
}

std::string Options(const CLI::App& app) {
  std::string out;
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_group().empty()) absl::StrAppend(&out, OptionText(*option));
  }
  return out;
}

// The paragraphs of a command's footer that are not those of the whole program.
std::string OwnFooter(const CLI::App& command, const std::string& of_all) {
  std::vector<absl::string_view> own;
  const std::string footer = command.get_footer();
  for (const absl::string_view line : absl::StrSplit(footer, '\n')) {
    if (line.empty() || absl::StartsWith(line, " ") || !absl::StrContains(of_all, line)) own.push_back(line);
  }
  return absl::StrJoin(own, "\n");
}

}  // namespace

std::string ManPage(const CLI::App& app, const std::string& version) {
  const std::string& name = app.get_name();
  const std::vector<const CLI::App*> commands = app.get_subcommands([](const CLI::App*) { return true; });
  const std::string description = app.get_description();
  const absl::string_view brief =
      absl::StripSuffix(absl::string_view(description).substr(0, description.find(". ")), ".");
  std::string out =
      absl::StrCat(".TH ", absl::AsciiStrToUpper(Plain(name)), " 1 \"\" \"", Plain(version), "\" \"User Commands\"\n");
  absl::StrAppend(&out, ".SH NAME\n", Plain(name), " \\- ", Plain(brief), "\n.SH SYNOPSIS\n.B ", Plain(name), "\n",
                  commands.empty() ? "" : ".I COMMAND\n", "[\\fIOPTION\\fR...]\n.SH DESCRIPTION\n", Text(description));
  if (!commands.empty()) absl::StrAppend(&out, ".SH COMMANDS\n");
  for (const CLI::App* command : commands) {
    absl::StrAppend(&out, ".SS ", Plain(absl::StrCat(name, " ", command->get_name())), "\n",
                    Text(command->get_description()), Options(*command), Text(OwnFooter(*command, app.get_footer())));
  }
  return absl::StrCat(out, ".SH OPTIONS\n", Options(app), ".SH NOTES\n", Text(app.get_footer()));
}

}  // namespace refit

#include "common/terminal/package_options.h"

#include "absl/strings/str_cat.h"
#include "common/terminal/command_words.h"
#include "common/terminal/completion.h"
#include "common/terminal/man_page.h"

namespace refit {
namespace {

std::string Completion(const CLI::App& app, const std::string& shell) {
  const CommandWords words = WordsOf(app);
  if (shell == "bash") return BashCompletion(words);
  if (shell == "zsh") return ZshCompletion(words);
  if (shell == "fish") return FishCompletion(words);
  throw CLI::ValidationError("--completion", absl::StrCat("expected bash, zsh or fish, got '", shell, "'"));
}

}  // namespace

void AddPackageOptions(CLI::App& app, const std::string& version) {
  // CLI11 ends a program by an exception, also where nothing went wrong.
  app.add_option_function<std::string>(
         "--completion", [&app](const std::string& shell) { throw CLI::CallForVersion(Completion(app, shell), 0); },
         "Print what a shell needs to complete this program's command lines: source <(... --completion bash)")
      ->option_text("bash|zsh|fish");
  app.add_flag_callback(
      "--man-page", [&app, version] { throw CLI::CallForVersion(ManPage(app, version), 0); },
      "Print the manual page: ... --man-page | man -l -");
}

}  // namespace refit

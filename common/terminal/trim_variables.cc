#include "common/terminal/trim_variables.h"

#include <cstdlib>
#include <string>

#include "absl/strings/ascii.h"

namespace refit {

void TrimVariables(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_envname();
    const char* value = name.empty() ? nullptr : std::getenv(name.c_str());
    if (value == nullptr) continue;
    const std::string trimmed(absl::StripAsciiWhitespace(value));
    if (trimmed != value) setenv(name.c_str(), trimmed.c_str(), 1);
  }
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) TrimVariables(*command);
}

}  // namespace refit

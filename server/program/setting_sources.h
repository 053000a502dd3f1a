// Where the settings of refit-server come from: a file, the environment, and flags. What comes later wins.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/settings.h"

namespace refit {

// The variable for a flag: REFIT_SERVER_PUSH_IDLE_TIMEOUT for --push-idle-timeout.
std::string VariableOf(absl::string_view flag);

class SettingSources {
 public:
  explicit SettingSources(std::vector<Setting> settings) : settings_(std::move(settings)) {}

  // Adds a flag for each setting. What they are given is noted when `app` parses. `app` must not outlive this.
  void AddFlags(CLI::App& app);

  // Sets all settings: from the file of this path, if there is one, the environment, and the flags that were given.
  // INVALID_ARGUMENT says which file and line, variable or flag is wrong.
  absl::Status Apply(const std::string& config_path);

  // All settings as a file that Apply takes. Those that nobody has set are comments.
  std::string AsFile() const;

 private:
  struct Given {
    std::string text;
    std::string origin;  // "refit.toml:12", "REFIT_SERVER_MEMORY" or "--memory"
  };

  absl::Status ApplyFile(const std::string& path);
  absl::Status Set(const Setting& setting, Given given);
  const Setting* Find(absl::string_view key) const;
  // "; did you mean 'memory'?", or nothing.
  std::string DidYouMean(absl::string_view key) const;

  const std::vector<Setting> settings_;
  std::map<std::string, std::string> flags_;  // by flag: what the command line gave
  std::map<std::string, Given> given_;        // by flag: what was set last
};

}  // namespace refit

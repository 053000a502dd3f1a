// The table of all settings of the service. refit-server's flags and the arguments of Python's refit.serve() are both
// made from it, so they have the same units and checks.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "refit/server.h"
#include "server/setting_values.h"

namespace refit {

struct Setting {
  std::string flag;      // "--push-idle-timeout"
  std::string argument;  // "push_idle_timeout"
  // The placeholder for the value in --help, such as SECONDS. Empty: the flag takes no value, and the argument is true
  // or false.
  std::string value;
  std::string help;  // with the default in brackets
  // Sets the value from text (setting_values.h).
  SetValue set;
  // Whether several values may be given, separated by commas. The flag may then be given several times.
  bool is_list = false;

  bool is_switch() const { return value.empty(); }
  // Whether the flag turns something off: `--no-shared-memory`.
  bool is_negative() const { return flag.rfind("--no-", 0) == 0; }
};

struct LogOptions {
  LogFormat format = LogFormat::kText;
  std::optional<LogLevel> level;  // nullopt: nothing is logged

  EventLog Make() const { return level.has_value() ? EventLog(format, *level) : EventLog(); }
};

// The settings of `options` and `log`, which must outlive them, in reading order.
std::vector<Setting> SettingsOf(ServerOptions& options, LogOptions& log);

// Replaces flags in `message` by Python arguments: "allow_plaintext=True", "shared_memory=False", "retain=0", and
// "memory=" where the message has no number.
std::string WithArgumentNames(absl::string_view message);

}  // namespace refit

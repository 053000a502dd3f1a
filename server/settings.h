// Every setting of the service by its name: refit-server's flags, and the arguments of Python's refit.serve(), are made
// of this one table, so that what one takes the other takes too, in the same units and with the same checks.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "refit/server.h"

namespace refit {

struct Setting {
  std::string flag;      // "--push-idle-timeout"
  std::string argument;  // "push_idle_timeout"
  // What --help shows for the value, such as SECONDS; empty: the flag takes none, and the argument is true or false.
  std::string value;
  std::string help;  // with the default in brackets
  // Takes a number as text, a SIZE with or without its unit ("16GiB"; units are powers of 1024), "true" or "false".
  // INVALID_ARGUMENT, which says what was expected and what came; then the options are as they were.
  std::function<absl::Status(const std::string&)> set;

  bool is_switch() const { return value.empty(); }
  // The switch turns off: `--no-shared-memory`.
  bool is_negative() const { return flag.rfind("--no-", 0) == 0; }
};

struct LogOptions {
  LogFormat format = LogFormat::kText;
  std::optional<LogLevel> level;  // nullopt: nothing is logged

  EventLog Make() const { return level.has_value() ? EventLog(format, *level) : EventLog(); }
};

// Of `options` and `log`, which must outlive them; in the order in which people should read them.
std::vector<Setting> SettingsOf(ServerOptions& options, LogOptions& log);

// `message` with arguments in the place of flags, for who gave arguments: "allow_plaintext=True",
// "shared_memory=False", "retain=0", and "memory=" where the message gives no number.
std::string WithArgumentNames(absl::string_view message);

}  // namespace refit

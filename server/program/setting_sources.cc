#include "server/program/setting_sources.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/terminal/suggestion.h"
#include "server/program/config_file.h"

namespace refit {
namespace {

std::string KeyOf(const Setting& setting) { return setting.flag.substr(2); }

// How a key may be written by somebody who has it from elsewhere: dashes for underscores, lower case.
std::string Normal(absl::string_view key) { return absl::StrReplaceAll(absl::AsciiStrToLower(key), {{"_", "-"}}); }

std::string AsComment(absl::string_view text) {
  std::string out;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) absl::StrAppend(&out, "# ", line, "\n");
  return out;
}

std::string ValueInFile(const Setting& setting, const std::string& text) {
  if (setting.is_switch()) return text;
  if (!setting.is_list) return ConfigValue(text);
  const std::vector<std::string> elements = absl::StrSplit(text, ',', absl::SkipWhitespace());
  const auto quote = [](std::string* out, absl::string_view element) {
    absl::StrAppend(out, ConfigValue(absl::StripAsciiWhitespace(element)));
  };
  return absl::StrCat("[", absl::StrJoin(elements, ", ", quote), "]");
}

}  // namespace

std::string VariableOf(absl::string_view flag) {
  return absl::StrCat("REFIT_SERVER_", absl::AsciiStrToUpper(absl::StrReplaceAll(flag.substr(2), {{"-", "_"}})));
}

void SettingSources::AddFlags(CLI::App& app) {
  for (const Setting& setting : settings_) {
    if (setting.is_switch()) {
      app.add_flag_callback(
          setting.flag, [this, flag = setting.flag] { flags_[flag] = "true"; }, setting.help);
      continue;
    }
    const auto note = [this, flag = setting.flag](const std::string& text) { flags_[flag] = text; };
    CLI::Option* option = app.add_option_function<std::string>(setting.flag, note, setting.help);
    option->option_text(setting.value);
    if (setting.is_list) option->join(',');
  }
}

absl::Status SettingSources::Apply(const std::string& config_path) {
  if (!config_path.empty()) {
    if (absl::Status status = ApplyFile(config_path); !status.ok()) return status;
  }
  for (const Setting& setting : settings_) {
    const std::string variable = VariableOf(setting.flag);
    const char* value = std::getenv(variable.c_str());
    // Values out of files, such as Kubernetes' secrets, often end in a newline.
    const absl::string_view text = value == nullptr ? "" : absl::StripAsciiWhitespace(value);
    // Unit files and manifests cannot leave a variable out, only empty.
    if (text.empty()) continue;
    if (absl::Status status = Set(setting, {std::string(text), variable}); !status.ok()) return status;
  }
  for (const Setting& setting : settings_) {
    const auto flag = flags_.find(setting.flag);
    if (flag == flags_.end()) continue;
    if (absl::Status status = Set(setting, {flag->second, setting.flag}); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status SettingSources::ApplyFile(const std::string& path) {
  const absl::StatusOr<std::vector<ConfigEntry>> entries = ReadConfigFile(path);
  if (!entries.ok()) return entries.status();
  for (const ConfigEntry& entry : *entries) {
    const Setting* setting = Find(entry.key);
    if (setting == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(entry.origin, ": there is no setting '", entry.key, "'", DidYouMean(entry.key)));
    }
    if (entry.is_array && !setting->is_list) {
      const absl::Status status = Expected("one value", absl::StrCat("[", entry.text, "]"));
      return absl::InvalidArgumentError(absl::StrCat(entry.origin, ": ", entry.key, ": ", status.message()));
    }
    if (absl::Status status = Set(*setting, {entry.text, entry.origin}); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status SettingSources::Set(const Setting& setting, Given given) {
  absl::Status status;
  bool is_on = false;
  if (!setting.is_switch()) {
    status = setting.set(given.text);
  } else if (absl::SimpleAtob(given.text, &is_on)) {
    given.text = is_on ? "true" : "false";
    status = setting.set(is_on != setting.is_negative() ? "true" : "false");
  } else {
    status = Expected("true or false", given.text);
  }
  if (!status.ok()) {
    const std::string which = given.origin == setting.flag ? "" : absl::StrCat(KeyOf(setting), ": ");
    return absl::InvalidArgumentError(absl::StrCat(given.origin, ": ", which, status.message()));
  }
  given_[setting.flag] = std::move(given);
  return absl::OkStatus();
}

const Setting* SettingSources::Find(absl::string_view key) const {
  const auto is_meant = [key](const Setting& setting) { return KeyOf(setting) == key; };
  const auto found = std::find_if(settings_.begin(), settings_.end(), is_meant);
  return found == settings_.end() ? nullptr : &*found;
}

std::string SettingSources::DidYouMean(absl::string_view key) const {
  // Python's arguments have names of their own: deltas=False is no-deltas = true.
  std::map<std::string, std::string> keys;
  std::vector<std::string> names;
  for (const Setting& setting : settings_) {
    keys.emplace(Normal(setting.argument), KeyOf(setting));
    keys.emplace(KeyOf(setting), KeyOf(setting));
  }
  names.reserve(keys.size());
  for (const auto& [name, meant] : keys) names.push_back(name);
  const std::string meant = Meant(Normal(key), names);
  return meant.empty() ? "; refit-server --print-config shows all"
                       : absl::StrCat("; did you mean '", keys[meant], "'?");
}

std::string SettingSources::AsFile() const {
  std::string out =
      "# Settings of refit-server, for refit-server --config FILE. Flags and the environment\n"
      "# (REFIT_SERVER_MEMORY and so on) win over it.\n";
  for (const Setting& setting : settings_) {
    absl::StrAppend(&out, "\n", AsComment(setting.help));
    const auto given = given_.find(setting.flag);
    if (given == given_.end()) {
      const std::string placeholder = setting.is_switch() ? "true" : ConfigValue(setting.value);
      absl::StrAppend(&out, "#", KeyOf(setting), " = ", placeholder, "\n");
    } else {
      absl::StrAppend(&out, KeyOf(setting), " = ", ValueInFile(setting, given->second.text), "  # from ",
                      given->second.origin, "\n");
    }
  }
  return out;
}

}  // namespace refit

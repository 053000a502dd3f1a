// Reads files of settings (TOML), and writes values for them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace refit {

// `key = value` in a file.
struct ConfigEntry {
  std::string key;
  std::string text;  // the value as on a command line; the elements of an array with commas between
  bool is_array = false;
  std::string origin;  // "refit.toml:12"
};

// The entries of a file, in order. INVALID_ARGUMENT, with file and line, for what is no TOML and for values that no
// setting has, such as tables and dates. NOT_FOUND if the file cannot be read.
absl::StatusOr<std::vector<ConfigEntry>> ReadConfigFile(const std::string& path);

// `text` as a value in a file: a number as it is, other text quoted.
std::string ConfigValue(absl::string_view text);

}  // namespace refit

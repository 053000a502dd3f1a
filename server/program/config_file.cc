#include "server/program/config_file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/limits/text_file.h"
#include "common/limits/toml.h"

namespace refit {
namespace {

std::string Place(const std::string& path, const toml::source_region& source) {
  return absl::StrCat(path, ":", source.begin.line);
}

std::string DecimalText(double number) {
  std::array<char, 400> text{};  // the longest has 309 digits before the point
  return {text.data(), std::to_chars(text.begin(), text.end(), number, std::chars_format::fixed).ptr};
}

// The text of a single value; an error says what is wrong with it.
absl::StatusOr<std::string> TextOf(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_floating_point()) return DecimalText(number->get());
  if (const auto* truth = node.as_boolean()) return std::string(truth->get() ? "true" : "false");
  const auto* number = node.as_integer();
  if (number == nullptr) return absl::InvalidArgumentError("expected text, a number, true or false");
  // 0o660 would come out as 432, which is other permissions.
  if (number->flags() != toml::value_flags::none) {
    return absl::InvalidArgumentError("write the number in decimal, permissions as 660");
  }
  return absl::StrCat(number->get());
}

absl::StatusOr<ConfigEntry> EntryOf(const std::string& key, const toml::node& node) {
  ConfigEntry entry{.key = key};
  const toml::array* array = node.as_array();
  if (array == nullptr) {
    absl::StatusOr<std::string> text = TextOf(node);
    if (!text.ok()) return text.status();
    entry.text = *std::move(text);
    return entry;
  }
  entry.is_array = true;
  for (const toml::node& element : *array) {
    const absl::StatusOr<std::string> text = TextOf(element);
    if (!text.ok()) return text.status();
    absl::StrAppend(&entry.text, entry.text.empty() ? "" : ",", *text);
  }
  return entry;
}

}  // namespace

absl::StatusOr<std::vector<ConfigEntry>> ReadConfigFile(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadTextFile(path);
  if (!text.ok()) return text.status();
  const toml::parse_result parsed = toml::parse(*text, path);
  if (!parsed) {
    return absl::InvalidArgumentError(
        absl::StrCat(Place(path, parsed.error().source()), ": ", std::string(parsed.error().description())));
  }
  std::vector<std::pair<toml::source_index, ConfigEntry>> entries;
  for (const auto& [key, node] : parsed.table()) {
    const std::string name(key.str());
    const std::string place = Place(path, key.source());
    absl::StatusOr<ConfigEntry> entry = EntryOf(name, node);
    if (node.is_table() || node.is_array_of_tables()) {
      entry = absl::InvalidArgumentError("there are no sections; all settings are keys of the top level");
    }
    if (!entry.ok()) return absl::InvalidArgumentError(absl::StrCat(place, ": ", name, ": ", entry.status().message()));
    entry->origin = place;
    entries.emplace_back(key.source().begin.line, *std::move(entry));
  }
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<ConfigEntry> in_order;
  in_order.reserve(entries.size());
  for (auto& [line, entry] : entries) in_order.push_back(std::move(entry));
  return in_order;
}

std::string ConfigValue(absl::string_view text) {
  int64_t whole = 0;
  double number = 0;
  const bool is_whole = absl::SimpleAtoi(text, &whole) && absl::StrCat(whole) == text;
  const bool is_decimal =
      absl::StrContains(text, '.') && absl::SimpleAtod(text, &number) && DecimalText(number) == text;
  if (is_whole || is_decimal) return std::string(text);
  std::ostringstream out;
  const toml::value<std::string> value{std::string(text)};
  out << toml::toml_formatter(value, toml::format_flags::none);
  return out.str();
}

}  // namespace refit

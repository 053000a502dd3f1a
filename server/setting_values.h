// Reads the values of settings from text. Each function returns what sets `option`: INVALID_ARGUMENT with the expected
// and the actual value leaves it unchanged. `option` must outlive it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"

namespace refit {

using SetValue = std::function<absl::Status(const std::string&)>;

// "expected `what`, got '`got`'".
absl::Status Expected(absl::string_view what, absl::string_view got);

SetValue Text(std::string& option);

// "true" or "false".
SetValue Switch(bool& option);

absl::StatusOr<uint64_t> ParseCount(const std::string& text, uint64_t least, uint64_t most);

template <typename Number>
SetValue Count(Number& option, uint64_t least = 0, uint64_t most = std::numeric_limits<int32_t>::max()) {
  return [&option, least, most](const std::string& text) {
    const absl::StatusOr<uint64_t> number = ParseCount(text, least, most);
    if (number.ok()) option = static_cast<Number>(*number);
    return number.status();
  };
}

absl::StatusOr<uint64_t> ParseSize(const std::string& text, uint64_t most);

// Bytes: a number with or without a unit, such as "16GiB". Units are powers of 1024.
template <typename Bytes>
SetValue Size(Bytes& option) {
  return [&option](const std::string& text) {
    const absl::StatusOr<uint64_t> bytes = ParseSize(text, std::numeric_limits<Bytes>::max() / 2);
    if (bytes.ok()) option = static_cast<Bytes>(*bytes);
    return bytes.status();
  };
}

SetValue Seconds(std::chrono::milliseconds& option, double least = 0.001, double most = 1e9);

// Permissions in octal, such as "660".
SetValue Mode(uint32_t& option);

// PullOptions::streams: "auto" is 0.
SetValue Streams(uint32_t& option);

// One of the names in `values`.
template <typename Value>
SetValue OneOf(Value& option, const std::map<std::string, Value>& values) {
  return [&option, values](const std::string& text) {
    const auto value = values.find(text);
    if (value == values.end()) {
      const auto name = [](std::string* out, const auto& named) { absl::StrAppend(out, named.first); };
      return Expected(absl::StrJoin(values, " or ", name), text);
    }
    option = value->second;
    return absl::OkStatus();
  };
}

}  // namespace refit

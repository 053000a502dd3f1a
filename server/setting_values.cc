#include "server/setting_values.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"

namespace refit {
namespace {

// Bytes in one unit of this name; 0 if there is no such unit.
double UnitBytes(absl::string_view unit) {
  constexpr absl::string_view kUnits = "bkmgtpe";
  if (unit.empty()) return 1;
  const size_t power = kUnits.find(unit[0]);
  const bool is_known = unit.size() == 1 || unit.substr(1) == "b" || unit.substr(1) == "ib";
  if (power == absl::string_view::npos || !is_known || (power == 0 && unit.size() > 1)) return 0;
  return std::exp2(10.0 * static_cast<double>(power));
}

}  // namespace

absl::Status Expected(absl::string_view what, absl::string_view got) {
  return absl::InvalidArgumentError(absl::StrCat("expected ", what, ", got '", got, "'"));
}

SetValue Text(std::string& option) {
  return [&option](const std::string& text) {
    option = text;
    return absl::OkStatus();
  };
}

SetValue Switch(bool& option) {
  return [&option](const std::string& text) {
    return absl::SimpleAtob(text, &option) ? absl::OkStatus() : Expected("true or false", text);
  };
}

absl::StatusOr<uint64_t> ParseCount(const std::string& text, uint64_t least, uint64_t most) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(text, &number) || number < least || number > most) {
    return Expected(absl::StrCat("a whole number from ", least, " to ", most), text);
  }
  return number;
}

absl::StatusOr<uint64_t> ParseSize(const std::string& text, uint64_t most) {
  const std::string lower = absl::AsciiStrToLower(absl::StripAsciiWhitespace(text));
  const size_t digits = std::min(lower.find_first_not_of("0123456789."), lower.size());
  double number = 0;
  const bool is_number = absl::SimpleAtod(lower.substr(0, digits), &number);
  const double bytes = number * UnitBytes(absl::StripLeadingAsciiWhitespace(absl::string_view(lower).substr(digits)));
  const bool is_zero = is_number && number == 0;
  if (!is_number || (bytes == 0 && !is_zero) || bytes > static_cast<double>(most)) {
    return Expected("a size such as 16GiB", text);
  }
  return static_cast<uint64_t>(bytes);
}

SetValue Seconds(std::chrono::milliseconds& option, double least, double most) {
  return [&option, least, most](const std::string& text) {
    double seconds = 0;
    if (!absl::SimpleAtod(text, &seconds) || !(seconds >= least && seconds <= most)) {
      return Expected(absl::StrCat("seconds from ", least, " to ", static_cast<int64_t>(most)), text);
    }
    option = std::chrono::milliseconds(std::llround(seconds * 1000));
    return absl::OkStatus();
  };
}

SetValue Mode(uint32_t& option) {
  return [&option](const std::string& text) {
    const bool is_octal = !text.empty() && text.size() <= 4 && text.find_first_not_of("01234567") == std::string::npos;
    const auto mode = is_octal ? static_cast<uint32_t>(std::stoul(text, nullptr, 8)) : 0;
    if (mode == 0 || mode > 0777) return Expected("permissions in octal such as 660", text);
    option = mode;
    return absl::OkStatus();
  };
}

SetValue Streams(uint32_t& option) {
  return [&option](const std::string& text) {
    constexpr uint32_t kMost = 64;
    uint32_t number = 0;
    const bool is_auto = text == "auto";
    if (!is_auto && (!absl::SimpleAtoi(text, &number) || number < 1 || number > kMost)) {
      return Expected(absl::StrCat("auto, or a number of connections from 1 to ", kMost), text);
    }
    option = number;
    return absl::OkStatus();
  };
}

}  // namespace refit

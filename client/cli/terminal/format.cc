#include "client/cli/terminal/format.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/net/wall_clock.h"

namespace refit::cli {
namespace {

// Formats a number below 1000 with three significant digits.
std::string ThreeDigits(double value) {
  return absl::StrFormat("%.*f", value < 9.995 ? 2 : value < 99.95 ? 1 : 0, value);
}

}  // namespace

std::string FormatBytes(uint64_t bytes) {
  if (bytes < 1000) return absl::StrCat(bytes, " B");
  static constexpr const char* kUnits[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  for (; value >= 999.5 && unit + 1 < std::size(kUnits); ++unit) value /= 1000;
  return absl::StrCat(ThreeDigits(value), " ", kUnits[unit]);
}

std::string FormatRate(uint64_t bytes, double seconds) {
  if (seconds <= 0 || bytes == 0) return "-";
  const double rate = static_cast<double>(bytes) / seconds;
  return rate < 5e6 ? absl::StrFormat("%.2f MB/s", rate / 1e6) : absl::StrFormat("%.2f GB/s", rate / 1e9);
}

std::string FormatDuration(double seconds) {
  if (seconds < 0) return "-";
  if (seconds < 0.9995) return absl::StrFormat("%.3f s", seconds);
  if (seconds < 119.95) return absl::StrCat(ThreeDigits(seconds), " s");
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 3600) return absl::StrFormat("%d min %02d s", whole / 60, whole % 60);
  if (whole < 48 * 3600) return absl::StrFormat("%d h %02d min", whole / 3600, whole / 60 % 60);
  return absl::StrFormat("%d d %d h", whole / 86400, whole / 3600 % 24);
}

std::string FormatTime(int64_t unix_ns) {
  if (unix_ns == 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixNanos(unix_ns), absl::LocalTimeZone());
}

std::string FormatShortTime(int64_t unix_ns) {
  if (unix_ns == 0) return "-";
  const bool recent = UnixNanos() - unix_ns < absl::ToInt64Nanoseconds(absl::Hours(12));
  return absl::FormatTime(recent ? "%H:%M:%S" : "%Y-%m-%d", absl::FromUnixNanos(unix_ns), absl::LocalTimeZone());
}

std::string FormatCount(uint64_t count, absl::string_view singular) {
  return absl::StrCat(count, " ", singular, count == 1 ? "" : "s");
}

std::string FormatPart(uint64_t done, uint64_t total) {
  return done >= total ? FormatBytes(total) : absl::StrCat(FormatBytes(done), " of ", FormatBytes(total));
}

std::string FormatPercent(uint64_t done, uint64_t total) {
  const double fraction = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  return absl::StrFormat("%d %%", static_cast<int>(fraction * 100));
}

std::string FormatDigest(uint64_t digest) { return absl::StrFormat("%016x", digest); }

std::string FormatNumber(double value) { return absl::StrFormat("%.6g", value); }

}  // namespace refit::cli

// Formats quantities for people.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace refit::cli {

// Decimal units, three significant digits: "0 B", "12.3 kB", "53.1 GB".
std::string FormatBytes(uint64_t bytes);

// "2.31 GB/s". Slow rates are in MB/s. "-" if no time passed.
std::string FormatRate(uint64_t bytes, double seconds);

// "0.012 s", "3.42 s", "75.2 s", "4 min 12 s", "2 h 05 min", "3 d 4 h".
std::string FormatDuration(double seconds);

// Local time, "2026-01-31 17:45:03"; "-" for 0. Nanoseconds since the Unix epoch.
std::string FormatTime(int64_t unix_ns);

// Local time in short: "17:45:03" within the last twelve hours, "2026-01-31" before.
std::string FormatShortTime(int64_t unix_ns);

// "1 tensor", "984 tensors".
std::string FormatCount(uint64_t count, absl::string_view singular);

// "5.73 GB", or "1.66 GB of 5.73 GB" if `done` is less than `total`.
std::string FormatPart(uint64_t done, uint64_t total);

// "45 %". 100 % if `total` is 0.
std::string FormatPercent(uint64_t done, uint64_t total);

// Sixteen hex digits.
std::string FormatDigest(uint64_t digest);

// Six significant digits; "nan", "inf".
std::string FormatNumber(double value);

}  // namespace refit::cli

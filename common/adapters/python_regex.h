// Matches Python regular expressions with RE2. RE2 takes linear time, so no pattern can stall the service.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "refit/sizes.h"

namespace refit {

// A compiled pattern with the meaning that Python's `re` gives it for str, as far as RE2 can express it: `\d`, `\w` and
// `\s` are Unicode-aware, `\Z` is the end, and `$` also matches before a final newline. Two things differ: `\b` only
// knows ASCII words, and a `$` in the middle of a pattern leaves no final newline for what follows it. Immutable,
// thread-safe.
class PythonRegex {
 public:
  static constexpr size_t kMaxPatternBytes = kMaxRegexBytes;

  // INVALID_ARGUMENT, with RE2's explanation, for a pattern that is malformed or needs look-around or back-references.
  // RESOURCE_EXHAUSTED for a pattern longer than kMaxPatternBytes, or too large when compiled.
  static absl::StatusOr<std::shared_ptr<const PythonRegex>> Compile(absl::string_view pattern);
  // Match as a function. Null for an empty pattern, which in options means none. Errors as Compile.
  static absl::StatusOr<std::function<bool(absl::string_view)>> Matcher(absl::string_view pattern);

  ~PythonRegex();

  // `re.match(pattern, text) is not None`: matches at the start only.
  bool Match(absl::string_view text) const;

  // `re.search(pattern, text) is not None`.
  bool Search(absl::string_view text) const;

  // The text that `re.search` finds and then that of each group, empty for one that took no part; nothing if it finds
  // none. Valid as long as `text`.
  std::vector<absl::string_view> Find(absl::string_view text) const;
  // Number of groups.
  int groups() const;

  const std::string& pattern() const { return pattern_; }

 private:
  struct Impl;
  PythonRegex(std::string pattern, std::unique_ptr<Impl> impl);
  std::string pattern_;
  std::unique_ptr<Impl> impl_;
};

// A pattern that matches exactly `text`.
std::string QuoteRegex(absl::string_view text);

}  // namespace refit

// Python regular expressions on RE2: linear time, so that no pattern can stall the service.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "refit/sizes.h"

namespace refit {

// A compiled pattern with the meaning that Python's `re` gives it on str, within what RE2 can express: `\d`, `\w`, `\s`
// are Unicode-aware, `\Z` is the end, `$` also matches before a final newline. Two things differ: `\b` knows ASCII
// words only, and a `$` in the middle of a pattern leaves no final newline for what follows it. Immutable, thread-safe.
class PythonRegex {
 public:
  static constexpr size_t kMaxPatternBytes = kMaxRegexBytes;

  // INVALID_ARGUMENT, with RE2's explanation, for a pattern that is malformed or needs look-around or back-references;
  // RESOURCE_EXHAUSTED for one longer than kMaxPatternBytes or too large when compiled.
  static absl::StatusOr<std::shared_ptr<const PythonRegex>> Compile(absl::string_view pattern);
  // Match as a function; null for an empty pattern, as options have it that name nothing. Errors as Compile.
  static absl::StatusOr<std::function<bool(absl::string_view)>> Matcher(absl::string_view pattern);

  ~PythonRegex();

  // `re.match(pattern, text) is not None`: anchored at the start only.
  bool Match(absl::string_view text) const;

  // `re.search(pattern, text) is not None`.
  bool Search(absl::string_view text) const;

  const std::string& pattern() const { return pattern_; }

 private:
  struct Impl;
  PythonRegex(std::string pattern, std::unique_ptr<Impl> impl);
  std::string pattern_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace refit

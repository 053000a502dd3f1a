// Finds a part of a tensor's name, and puts another in its place.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/adapters/family.h"
#include "common/adapters/python_regex.h"

namespace refit {

// A pattern that matches what any of these does; null if there are none. INVALID_ARGUMENT for a bad one.
absl::StatusOr<std::shared_ptr<const PythonRegex>> AnyOf(const std::vector<std::string>& patterns);

// What {name} stands for in the texts of a family.
using Variables = std::map<std::string, std::string>;

// `text` with the variables' values for {name}. {expert} stays. INVALID_ARGUMENT for a name that is not there.
absl::StatusOr<std::string> Expand(absl::string_view text, const Variables& variables);

// A compiled matcher. Immutable, thread-safe.
class NameFinder {
 public:
  static absl::StatusOr<NameFinder> Compile(const NameMatcher& matcher, const Variables& variables);

  struct Found {
    absl::string_view text;                 // what it matched, in the name
    std::vector<absl::string_view> groups;  // of a regex
  };
  std::optional<Found> Find(absl::string_view name) const;
  bool Matches(absl::string_view name) const;

  // The name with `by` for the text that was found: at its place for a prefix, suffix or whole name; wherever it occurs
  // for a substring or regex, as Python's str.replace.
  std::string Replace(absl::string_view name, const Found& found, absl::string_view by) const;

  int groups() const;
  NameMatcher::Kind kind() const { return kind_; }
  // The matcher's text, with the variables' values.
  const std::string& text() const { return text_; }

 private:
  NameMatcher::Kind kind_ = NameMatcher::Kind::kExact;
  std::string text_;
  std::shared_ptr<const PythonRegex> regex_;
};

// `to` with the groups for \1 to \9. They must exist.
std::string WithGroups(absl::string_view to, const std::vector<absl::string_view>& groups);
// The largest N of a \N in `to`.
int LargestGroup(absl::string_view to);

}  // namespace refit

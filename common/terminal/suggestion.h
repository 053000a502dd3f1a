// Suggests a word for a mistyped one ("did you mean ...").
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace refit {

// The candidate that differs from `word` by one or two typing errors: a character inserted, missing, wrong, or two
// swapped. Empty if none is that close.
std::string Meant(absl::string_view word, const std::vector<std::string>& candidates);

}  // namespace refit

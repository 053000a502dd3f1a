// What somebody meant who mistyped a word.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace refit::cli {

// The candidate that is `word` but for a slip or two: a character too many, missing, wrong, or two exchanged. Empty if
// none is that near.
std::string Meant(absl::string_view word, const std::vector<std::string>& candidates);

}  // namespace refit::cli

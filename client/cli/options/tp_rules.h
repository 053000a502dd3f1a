// Reads files that say along which dimension a tensor-parallel group splits which tensors.
//
// A line holds a dimension and an RE2 pattern that is searched in the tensor's name, such as `0 \.q_proj\.weight$`.
// One line at most may match a tensor. Empty lines are ignored. A # at the beginning of a line, or after a blank,
// begins a comment.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "refit/layout_rule.h"

namespace refit::cli {

// Makes one rule from each line. The caller fills in part and parts. INVALID_ARGUMENT, naming `path` and the line, for
// a line that is not a rule, and for a text without rules.
absl::StatusOr<std::vector<LayoutRule>> ParseTpRules(absl::string_view text, const std::string& path);

// As ParseTpRules, for a file. Errors as ReadTextFile, too: NOT_FOUND or PERMISSION_DENIED if it cannot be read.
absl::StatusOr<std::vector<LayoutRule>> ReadTpRules(const std::string& path);

}  // namespace refit::cli

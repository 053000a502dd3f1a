// Files that say which dimension of which tensors a tensor-parallel group cuts.
//
// A line is a dimension and an RE2 pattern to be found in a tensor's name, `0 \.q_proj\.weight$`. Empty lines are
// ignored, and so is what follows a # at a line's beginning or behind a blank.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "refit/layout_rule.h"

namespace refit::cli {

// A rule a line; part and parts are left to the caller. INVALID_ARGUMENT, naming `path` and the line, for one that is
// no rule, and for a text without any.
absl::StatusOr<std::vector<LayoutRule>> ParseTpRules(absl::string_view text, const std::string& path);

// Of a file. NOT_FOUND or PERMISSION_DENIED from the file system.
absl::StatusOr<std::vector<LayoutRule>> ReadTpRules(const std::string& path);

}  // namespace refit::cli

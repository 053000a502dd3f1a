// Reads a family from TOML text.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/adapters/family.h"

namespace refit {

// The text of rules that several families share; nullopt if there are none of this name.
using SharedRules = absl::FunctionRef<std::optional<absl::string_view>(absl::string_view name)>;

// families/README.md explains the form. INVALID_ARGUMENT, beginning with "SOURCE:LINE: ", for text that is not TOML,
// for unknown or missing keys, values of other types, bad patterns and sizes, and names in templates that stand for
// nothing.
absl::StatusOr<std::shared_ptr<const Family>> ReadFamily(absl::string_view text, const std::string& source,
                                                         SharedRules shared);

}  // namespace refit

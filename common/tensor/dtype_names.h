// Names of dtypes in messages. For this project's own use.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "refit/dtype.h"

namespace refit {

// INVALID_ARGUMENT: `got` names no dtype. Lists those that are known, as `name_of` calls them.
absl::Status UnknownDType(absl::string_view got, absl::string_view (*name_of)(DType));

}  // namespace refit

// The error for an unknown dtype. For this project's own use.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "refit/dtype.h"

namespace refit {

// INVALID_ARGUMENT: `got` is not a dtype. Lists the known ones by the names that `name_of` returns.
absl::Status UnknownDType(absl::string_view got, absl::string_view (*name_of)(DType));

}  // namespace refit

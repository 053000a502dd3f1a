// Sizes in terms of a tensor's dimensions, such as "d2/2", "d0*d1" or "16".
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace refit {

// Factors with `*` and `/` between them, from left to right; a factor is a number or a dimension.
// INVALID_ARGUMENT for another form, for a dimension that the shape lacks, for a division with a remainder, and for a
// result beyond 2^63-1.
absl::StatusOr<int64_t> EvaluateSize(absl::string_view expression, absl::Span<const int64_t> shape);

// INVALID_ARGUMENT for another form, whatever the shape.
absl::Status CheckSizeExpression(absl::string_view expression);

}  // namespace refit

// Sizes in terms of a tensor's dimensions, such as "d2/2", "d0*d1" or "16".
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace refit {

// Factors with `*` and `/` between them, from left to right; a factor is a number or a dimension.
// INVALID_ARGUMENT for another form, for a dimension that the shape lacks, for a division with a remainder, and for a
// result beyond 2^63-1.
absl::StatusOr<int64_t> EvaluateSize(absl::string_view expression, absl::Span<const int64_t> shape);

// The one dimension that a product of dimensions and numbers leaves open, if the others are known and the product is
// `result`: its index and size. nullopt if none or several are open, for a quotient, and if there is no such size.
std::optional<std::pair<size_t, int64_t>> SolveSize(absl::string_view expression, int64_t result,
                                                    absl::Span<const std::optional<int64_t>> dimensions);

// INVALID_ARGUMENT for another form, whatever the shape.
absl::Status CheckSizeExpression(absl::string_view expression);

}  // namespace refit

// Shapes, and arithmetic on them with overflow checks.
#pragma once

#include <cstdint>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "refit/dtype.h"

namespace refit {

// The number of elements in each dimension, outermost first; row-major. Empty for a 0-D tensor (one element). A zero
// makes a tensor empty. Shapes of up to four dimensions need no allocation.
using Shape = absl::InlinedVector<int64_t, 4>;

// Largest rank that is accepted.
inline constexpr size_t kMaxRank = 16;

// Product of the dimensions; 1 for 0-D. INVALID_ARGUMENT for a negative dimension, too many dimensions, or a product
// above 2^63-1 (also if a zero among them would make the product 0).
absl::StatusOr<int64_t> ElementCount(absl::Span<const int64_t> shape);

// ElementCount times the element size, with the same checks.
absl::StatusOr<uint64_t> ByteCount(DType dtype, absl::Span<const int64_t> shape);

// "[128, 2816, 1408]".
std::string ToString(absl::Span<const int64_t> shape);

}  // namespace refit

#include "refit/shape.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace refit {
namespace {

// Product of `unit` and the dimensions; -1 if it is invalid. Called very often, for many tensors.
int64_t Product(absl::Span<const int64_t> shape, int64_t unit) {
  if (shape.size() > kMaxRank) return -1;
  // Zeros are left out of the product, so that they cannot hide a dimension that overflows.
  int64_t nonzero = unit;
  bool empty = false;
  for (const int64_t dimension : shape) {
    if (dimension < 0) return -1;
    if (dimension == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(nonzero, dimension, &nonzero)) {
      return -1;
    }
  }
  return empty ? 0 : nonzero;
}

// Explains why Product rejects it.
absl::Status Refusal(absl::Span<const int64_t> shape, absl::string_view what) {
  if (shape.size() > kMaxRank) {
    return absl::InvalidArgumentError(
        absl::StrCat("shape has ", shape.size(), " dimensions; at most ", kMaxRank, " are accepted"));
  }
  const bool negative = std::any_of(shape.begin(), shape.end(), [](int64_t dimension) { return dimension < 0; });
  return absl::InvalidArgumentError(negative ? absl::StrCat("shape ", ToString(shape), " has a negative dimension")
                                             : absl::StrCat("shape ", ToString(shape), " has more than 2^63-1 ", what));
}

}  // namespace

absl::StatusOr<int64_t> ElementCount(absl::Span<const int64_t> shape) {
  const int64_t count = Product(shape, 1);
  if (count < 0) return Refusal(shape, "elements");
  return count;
}

absl::StatusOr<uint64_t> ByteCount(DType dtype, absl::Span<const int64_t> shape) {
  const int64_t count = Product(shape, static_cast<int64_t>(ElementSize(dtype)));
  if (count < 0) return Refusal(shape, "bytes");
  return static_cast<uint64_t>(count);
}

std::string ToString(absl::Span<const int64_t> shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

}  // namespace refit

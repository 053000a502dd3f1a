#include "common/tensor/shape.h"

#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace refit {
namespace {

constexpr int64_t kMaxCount = std::numeric_limits<int64_t>::max();

struct Product {
  int64_t nonzero = 1;  // of `unit` and the dimensions that are not zero
  bool empty = false;
};

// Zeros are left out of the product so that they cannot hide a dimension that overflows.
absl::StatusOr<Product> Multiply(absl::Span<const int64_t> shape, int64_t unit, absl::string_view what) {
  if (shape.size() > kMaxRank) {
    return absl::InvalidArgumentError(
        absl::StrCat("shape has ", shape.size(), " dimensions; at most ", kMaxRank, " are accepted"));
  }
  Product product{unit};
  for (int64_t dimension : shape) {
    if (dimension < 0) {
      return absl::InvalidArgumentError(absl::StrCat("shape ", ToString(shape), " has a negative dimension"));
    }
    if (dimension == 0) {
      product.empty = true;
    } else if (product.nonzero > kMaxCount / dimension) {
      return absl::InvalidArgumentError(absl::StrCat("shape ", ToString(shape), " has more than 2^63-1 ", what));
    } else {
      product.nonzero *= dimension;
    }
  }
  return product;
}

}  // namespace

absl::StatusOr<int64_t> ElementCount(absl::Span<const int64_t> shape) {
  absl::StatusOr<Product> product = Multiply(shape, 1, "elements");
  if (!product.ok()) return product.status();
  return product->empty ? 0 : product->nonzero;
}

absl::StatusOr<uint64_t> ByteCount(DType dtype, absl::Span<const int64_t> shape) {
  absl::StatusOr<Product> product = Multiply(shape, static_cast<int64_t>(ElementSize(dtype)), "bytes");
  if (!product.ok()) return product.status();
  return product->empty ? 0 : static_cast<uint64_t>(product->nonzero);
}

std::string ToString(absl::Span<const int64_t> shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

}  // namespace refit

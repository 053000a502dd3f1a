// Computes min, max, mean and the number of special values of a tensor, for people who inspect a version.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "refit/dtype.h"

namespace refit {

// NaNs only count in nan_count. min, max and mean are absent if there are no other elements. Infinities count for min
// and max, and for the mean as in IEEE arithmetic.
struct TensorStatistics {
  std::optional<double> min;
  std::optional<double> max;
  std::optional<double> mean;
  uint64_t nan_count = 0;
  uint64_t inf_count = 0;
  uint64_t zero_count = 0;
  uint64_t elements = 0;
};

// `bytes` holds whole elements. One pass. The mean is summed in double, with pairwise or compensated summation.
TensorStatistics ComputeStatistics(DType dtype, absl::Span<const std::byte> bytes);

}  // namespace refit

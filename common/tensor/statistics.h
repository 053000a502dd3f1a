// Min, max, mean and odd values of a tensor, for people who look into a version.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "refit/dtype.h"

namespace refit {

// NaNs count in nan_count and nowhere else; min, max and mean are absent when nothing else is there. Infinities take
// part in min and max, and in the mean as IEEE has it.
struct TensorStatistics {
  std::optional<double> min;
  std::optional<double> max;
  std::optional<double> mean;
  uint64_t nan_count = 0;
  uint64_t inf_count = 0;
  uint64_t zero_count = 0;
  uint64_t elements = 0;
};

// `bytes` holds whole elements. One pass; the mean is summed in double with pairwise or compensated summation.
TensorStatistics ComputeStatistics(DType dtype, absl::Span<const std::byte> bytes);

}  // namespace refit

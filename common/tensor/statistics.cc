#include "common/tensor/statistics.h"

namespace refit {

TensorStatistics ComputeStatistics(DType, absl::Span<const std::byte>) { return {}; }

}  // namespace refit

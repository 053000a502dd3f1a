#include "common/tensor/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/tensor/kernels.h"

namespace refit {
namespace {

constexpr int64_t kBlock = 1024;  // elements that are decoded and summed together
constexpr int64_t kLanes = 8;     // independent sums: each gets every kLanes-th element

struct BlockStatistics {
  double min = std::numeric_limits<double>::infinity();
  double max = -std::numeric_limits<double>::infinity();
  double sum = 0;
  int64_t nans = 0;
  int64_t infinities = 0;
  int64_t zeros = 0;
};

// Without branches, so that the inner loop is vectorised.
BlockStatistics Summarise(const double* values, int64_t count) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double min[kLanes];
  double max[kLanes];
  double sum[kLanes] = {};
  int64_t nans[kLanes] = {};
  int64_t infinities[kLanes] = {};
  int64_t zeros[kLanes] = {};
  std::fill_n(min, kLanes, kInfinity);
  std::fill_n(max, kLanes, -kInfinity);
  const auto add = [&](double value, int64_t lane) {
    const bool number = value == value;
    // Comparisons with NaN are false, so NaN changes neither.
    min[lane] = value < min[lane] ? value : min[lane];
    max[lane] = value > max[lane] ? value : max[lane];
    sum[lane] += number ? value : 0;
    nans[lane] += !number;
    infinities[lane] += std::fabs(value) == kInfinity;
    zeros[lane] += value == 0;
  };
  const int64_t whole = count - count % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) add(values[i + lane], lane);
  }
  for (int64_t i = whole; i < count; ++i) add(values[i], i - whole);

  BlockStatistics block;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    block.min = std::min(block.min, min[lane]);
    block.max = std::max(block.max, max[lane]);
    block.sum += sum[lane];
    block.nans += nans[lane];
    block.infinities += infinities[lane];
    block.zeros += zeros[lane];
  }
  return block;
}

void Decode(DType dtype, const std::byte* src, double* values, int64_t count) {
  if (CanConvert(dtype, DType::kF64)) {
    ConvertElements(dtype, DType::kF64, src, reinterpret_cast<std::byte*>(values), count);
  } else {
    for (int64_t i = 0; i < count; ++i) values[i] = ElementAsDouble(dtype, src, i);
  }
}

// Neumaier's compensated sum.
class Sum {
 public:
  void Add(double value) {
    const double total = total_ + value;
    lost_ += std::fabs(total_) >= std::fabs(value) ? (total_ - total) + value : (value - total) + total_;
    total_ = total;
  }
  // Once the total is infinite or NaN, the compensation is not a number.
  double value() const { return std::isfinite(total_) ? total_ + lost_ : total_; }

 private:
  double total_ = 0;
  double lost_ = 0;
};

}  // namespace

TensorStatistics ComputeStatistics(DType dtype, absl::Span<const std::byte> bytes) {
  const size_t size = ElementSize(dtype);
  const auto elements = static_cast<int64_t>(bytes.size() / size);
  TensorStatistics statistics;
  statistics.elements = static_cast<uint64_t>(elements);
  BlockStatistics all;
  Sum sum;
  double values[kBlock];
  for (int64_t at = 0; at < elements; at += kBlock) {
    const int64_t count = std::min(kBlock, elements - at);
    Decode(dtype, bytes.data() + static_cast<size_t>(at) * size, values, count);
    const BlockStatistics block = Summarise(values, count);
    all.min = std::min(all.min, block.min);
    all.max = std::max(all.max, block.max);
    sum.Add(block.sum);
    statistics.nan_count += static_cast<uint64_t>(block.nans);
    statistics.inf_count += static_cast<uint64_t>(block.infinities);
    statistics.zero_count += static_cast<uint64_t>(block.zeros);
  }
  const uint64_t numbers = statistics.elements - statistics.nan_count;
  if (numbers > 0) {
    statistics.min = all.min;
    statistics.max = all.max;
    statistics.mean = sum.value() / static_cast<double>(numbers);
  }
  return statistics;
}

}  // namespace refit

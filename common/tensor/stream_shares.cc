#include "common/tensor/stream_shares.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

namespace refit {
namespace {

// A run below this costs more in messages than it gains.
constexpr uint64_t kLeastRunBytes = 4 << 20;
// So does a connection for less than this.
constexpr uint64_t kLeastStreamBytes = 16 << 20;

// The outermost dimension that can be divided: what lies outside of it has one element, so runs are contiguous.
std::optional<size_t> DividedDimension(const TensorPart& part, size_t streams) {
  if (part.ByteSize() < streams * kLeastRunBytes) return std::nullopt;
  const auto size = std::find_if(part.box.sizes.begin(), part.box.sizes.end(), [](int64_t n) { return n > 1; });
  if (size == part.box.sizes.end()) return std::nullopt;
  return size - part.box.sizes.begin();
}

std::vector<size_t> LeastFirst(const std::vector<uint64_t>& sums) {
  std::vector<size_t> order(sums.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return sums[a] < sums[b]; });
  return order;
}

}  // namespace

std::vector<std::vector<StreamRun>> DivideAmong(size_t streams, absl::Span<const TensorPart> parts, bool whole) {
  std::vector<std::vector<StreamRun>> runs(parts.size());
  std::vector<uint64_t> sums(streams, 0);
  for (size_t i = 0; i < parts.size(); ++i) {
    const uint64_t size = parts[i].ByteSize();
    const std::optional<size_t> dimension = whole ? std::nullopt : DividedDimension(parts[i], streams);
    if (!dimension.has_value()) {
      const size_t least = std::min_element(sums.begin(), sums.end()) - sums.begin();
      sums[least] += size;
      if (size > 0) runs[i].push_back({least, parts[i].box, 0, size});
      continue;
    }
    uint64_t begin = 0;
    const std::vector<size_t> order = LeastFirst(sums);
    for (size_t k = 0; k < streams; ++k) {
      const TensorPart run{parts[i].tensor, Cut(parts[i].box, *dimension, Split::kBalanced, k, streams)};
      const uint64_t bytes = run.ByteSize();
      if (bytes == 0) break;
      runs[i].push_back({order[k], run.box, begin, begin + bytes});
      sums[order[k]] += bytes;
      begin += bytes;
    }
  }
  return runs;
}

size_t UsefulStreams(uint64_t bytes, size_t streams) {
  return std::clamp<uint64_t>(bytes / kLeastStreamBytes, 1, streams);
}

}  // namespace refit

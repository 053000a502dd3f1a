#include "refit/box.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

// Adds `box` without `cut` to `rest`, as boxes that do not overlap.
void Subtract(const Box& box, const Box& cut, std::vector<Box>& rest) {
  const std::optional<Box> common = Intersection(box, cut);
  if (!common.has_value()) {
    rest.push_back(box);
    return;
  }
  Box left = box;  // narrowed to `common`, one dimension after the other
  for (size_t d = 0; d < box.sizes.size(); ++d) {
    const int64_t begin = left.offsets[d];
    const int64_t end = begin + left.sizes[d];
    const int64_t common_begin = common->offsets[d];
    const int64_t common_end = common_begin + common->sizes[d];
    for (const auto& [from, to] : {std::pair(begin, common_begin), std::pair(common_end, end)}) {
      if (from >= to) continue;
      Box piece = left;
      piece.offsets[d] = from;
      piece.sizes[d] = to - from;
      rest.push_back(std::move(piece));
    }
    left.offsets[d] = common_begin;
    left.sizes[d] = common->sizes[d];
  }
}

// The first part of the shape that is in none of the boxes; nullopt if there is none.
std::optional<Box> FirstMissing(absl::Span<const int64_t> shape, absl::Span<const Box> boxes) {
  std::vector<Box> missing = {WholeBox(shape)};
  for (const Box& box : boxes) {
    std::vector<Box> rest;
    for (const Box& part : missing) Subtract(part, box, rest);
    missing = std::move(rest);
  }
  if (missing.empty()) return std::nullopt;
  return *std::min_element(missing.begin(), missing.end());
}

// Sweeps along one dimension, so that only boxes that meet there are compared.
std::optional<std::pair<size_t, size_t>> FirstOverlap(absl::Span<const Box> boxes, size_t dimension) {
  std::vector<size_t> order(boxes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto begin = [&](size_t i) { return boxes[i].offsets[dimension]; };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return begin(a) < begin(b); });
  std::vector<size_t> active;
  for (const size_t next : order) {
    active.erase(std::remove_if(active.begin(), active.end(),
                                [&](size_t i) { return begin(i) + boxes[i].sizes[dimension] <= begin(next); }),
                 active.end());
    for (const size_t other : active) {
      if (Intersection(boxes[other], boxes[next]).has_value()) return std::minmax(other, next);
    }
    active.push_back(next);
  }
  return std::nullopt;
}

// The dimension in which the boxes have the most different beginnings, so that few of them meet.
size_t BestSweep(absl::Span<const Box> boxes, size_t rank) {
  size_t best = 0;
  size_t most = 0;
  for (size_t d = 0; d < rank; ++d) {
    std::vector<int64_t> begins;
    for (const Box& box : boxes) begins.push_back(box.offsets[d]);
    std::sort(begins.begin(), begins.end());
    const size_t distinct = std::unique(begins.begin(), begins.end()) - begins.begin();
    if (distinct > most) {
      most = distinct;
      best = d;
    }
  }
  return best;
}

}  // namespace

Box WholeBox(absl::Span<const int64_t> shape) { return {Shape(shape.size(), 0), Shape(shape.begin(), shape.end())}; }

absl::Status Validate(const Box& box, absl::Span<const int64_t> shape) {
  if (box.offsets.size() != shape.size() || box.sizes.size() != shape.size()) {
    return absl::InvalidArgumentError(absl::StrCat("a box of ", box.offsets.size(), " offsets and ", box.sizes.size(),
                                                   " sizes in a tensor of shape ", ToString(shape), "; expected ",
                                                   shape.size(), " of each"));
  }
  for (size_t d = 0; d < shape.size(); ++d) {
    const int64_t offset = box.offsets[d];
    const int64_t size = box.sizes[d];
    if (offset >= 0 && size >= 0 && offset <= shape[d] && size <= shape[d] - offset) continue;
    return absl::InvalidArgumentError(absl::StrCat("a box with offset ", offset, " and size ", size, " in dimension ",
                                                   d, " is out of bounds of shape ", ToString(shape)));
  }
  return absl::OkStatus();
}

int64_t ElementCount(const Box& box) {
  return std::accumulate(box.sizes.begin(), box.sizes.end(), int64_t{1},
                         [](int64_t a, int64_t b) { return a == 0 ? 0 : a * b; });
}

bool IsWhole(const Box& box, absl::Span<const int64_t> shape) { return absl::MakeConstSpan(box.sizes) == shape; }

std::optional<Box> Intersection(const Box& a, const Box& b) {
  Box common = a;
  for (size_t d = 0; d < a.sizes.size(); ++d) {
    const int64_t begin = std::max(a.offsets[d], b.offsets[d]);
    const int64_t end = std::min(a.offsets[d] + a.sizes[d], b.offsets[d] + b.sizes[d]);
    if (begin >= end) return std::nullopt;
    common.offsets[d] = begin;
    common.sizes[d] = end - begin;
  }
  return common;
}

std::string ToString(const Box& box) {
  std::string text = "[";
  for (size_t d = 0; d < box.sizes.size(); ++d) {
    absl::StrAppend(&text, d == 0 ? "" : ", ", box.offsets[d], ":", box.offsets[d] + box.sizes[d]);
  }
  return text + "]";
}

Box Cut(const Box& box, size_t dimension, Split split, uint64_t part, uint64_t parts) {
  const auto size = static_cast<uint64_t>(box.sizes[dimension]);
  uint64_t begin = 0;
  uint64_t end = 0;
  if (split == Split::kBalanced) {
    const uint64_t share = size / parts;
    const uint64_t longer = size % parts;
    begin = part * share + std::min(part, longer);
    end = begin + share + (part < longer ? 1 : 0);
  } else {
    const uint64_t share = size == 0 ? 0 : (size - 1) / parts + 1;
    begin = share == 0 || part < size / share + 1 ? std::min(size, part * share) : size;
    end = std::min(size, begin + share);
  }
  Box cut = box;
  cut.offsets[dimension] += static_cast<int64_t>(begin);
  cut.sizes[dimension] = static_cast<int64_t>(end - begin);
  return cut;
}

std::optional<TilingError> CheckTiling(absl::Span<const int64_t> shape, absl::Span<const Box> boxes) {
  // All boxes of a 0-D tensor are the whole tensor.
  const auto overlap = shape.empty()
                           ? (boxes.size() > 1 ? std::optional(std::pair<size_t, size_t>(0, 1)) : std::nullopt)
                           : FirstOverlap(boxes, BestSweep(boxes, shape.size()));
  if (overlap.has_value()) return TilingError{overlap, std::nullopt};
  int64_t covered = 0;
  for (const Box& box : boxes) covered += ElementCount(box);
  if (covered == ElementCount(WholeBox(shape))) return std::nullopt;
  return TilingError{std::nullopt, FirstMissing(shape, boxes)};
}

TensorPart TensorPart::Whole(TensorSpec tensor) {
  Box box = WholeBox(tensor.shape);
  return {std::move(tensor), std::move(box)};
}

std::vector<TensorPart> WholeParts(std::vector<TensorSpec> tensors) {
  std::vector<TensorPart> parts;
  parts.reserve(tensors.size());
  for (TensorSpec& tensor : tensors) parts.push_back(TensorPart::Whole(std::move(tensor)));
  return parts;
}

std::string TensorPart::ToString() const {
  if (is_whole()) return tensor.ToString();
  return absl::StrCat(tensor.ToString(), " box ", refit::ToString(box));
}

BoxRuns::BoxRuns(absl::Span<const int64_t> shape, const Box& box) {
  if (ElementCount(box) == 0) return;  // nothing to place, and its corner may be out of range
  size_t d = shape.size();
  int64_t stride = 1;  // elements of the tensor from one index of dimension d to the next
  // Whole dimensions, and the first one that is not whole, form one run.
  while (d > 0) {
    --d;
    run_length_ *= box.sizes[d];
    offset_ += box.offsets[d] * stride;
    stride *= shape[d];
    if (box.sizes[d] != shape[d]) break;
  }
  while (d > 0) {
    --d;
    offset_ += box.offsets[d] * stride;
    if (box.sizes[d] != 1) {
      outer_sizes_.push_back(box.sizes[d]);
      outer_strides_.push_back(stride);
    }
    stride *= shape[d];
  }
}

int64_t BoxRuns::PlaceOfRun(int64_t run) const {
  int64_t place = offset_;
  for (size_t i = 0; i < outer_sizes_.size(); ++i) {
    place += run % outer_sizes_[i] * outer_strides_[i];
    run /= outer_sizes_[i];
  }
  return place;
}

void BoxRuns::ForEach(int64_t first, int64_t count, absl::FunctionRef<void(int64_t, int64_t)> visit) const {
  while (count > 0) {
    const int64_t within = first % run_length_;
    const int64_t piece = std::min(count, run_length_ - within);
    visit(PlaceOfRun(first / run_length_) + within, piece);
    first += piece;
    count -= piece;
  }
}

}  // namespace refit

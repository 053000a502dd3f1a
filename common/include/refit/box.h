// Boxes: axis-aligned parts of a tensor, which ranks hold and workers request.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "refit/shape.h"
#include "refit/tensor_spec.h"

namespace refit {

// The elements [offsets[d], offsets[d] + sizes[d]) of each dimension d of a tensor. A 0-D tensor's box has neither.
struct Box {
  Shape offsets;
  Shape sizes;

  friend bool operator==(const Box& a, const Box& b) { return a.offsets == b.offsets && a.sizes == b.sizes; }
  friend bool operator!=(const Box& a, const Box& b) { return !(a == b); }
  friend bool operator<(const Box& a, const Box& b) {
    return a.offsets != b.offsets ? a.offsets < b.offsets : a.sizes < b.sizes;
  }
};

Box WholeBox(absl::Span<const int64_t> shape);

// INVALID_ARGUMENT unless the box has the shape's rank and lies within it. The shape must be valid.
absl::Status Validate(const Box& box, absl::Span<const int64_t> shape);

// The functions below need a valid box.

// Number of elements; 0 for an empty box.
int64_t ElementCount(const Box& box);
bool IsWhole(const Box& box, absl::Span<const int64_t> shape);
// The elements in both boxes of one tensor; nullopt if there are none.
std::optional<Box> Intersection(const Box& a, const Box& b);
// "[0:16, 352:704]": begin and end of each dimension.
std::string ToString(const Box& box);

// How a dimension of n elements is split into parts if n is not divisible.
enum class Split {
  // n / parts each, and one more for the first n % parts: expert parallelism, like the reference adapter's
  // get_expert_range_for_rank.
  kBalanced,
  // ceil(n / parts) each; the last parts have fewer or none: torch.chunk, and so FSDP and DTensor's Shard(dim).
  kCeil,
};

// Part number `part` of `parts` of the box along one dimension. It may be empty. Requires dimension < rank and part <
// parts.
Box Cut(const Box& box, size_t dimension, Split split, uint64_t part, uint64_t parts);

// Where boxes fail to tile a shape. They tile it if every element is in exactly one box. None of the boxes is empty.
struct TilingError {
  // Two boxes that overlap (their indices), or
  std::optional<std::pair<size_t, size_t>> overlap;
  // a part of the tensor that is in no box.
  std::optional<Box> missing;
};
std::optional<TilingError> CheckTiling(absl::Span<const int64_t> shape, absl::Span<const Box> boxes);

// A box of a tensor: a rank's shard, or a worker's part. Its elements are stored row-major in the box.
struct TensorPart {
  TensorSpec tensor;  // the whole tensor, with its global shape
  Box box;

  static TensorPart Whole(TensorSpec tensor);
  bool is_whole() const { return IsWhole(box, tensor.shape); }
  // The part as a tensor of its own, with the box's shape.
  TensorSpec spec() const { return {tensor.name, tensor.dtype, box.sizes}; }
  // Size of the part in bytes.
  uint64_t ByteSize() const { return static_cast<uint64_t>(ElementCount(box)) * ElementSize(tensor.dtype); }
  // "model.norm.weight BF16 [2816]"; for a proper part, "[0:704] of it" is appended.
  std::string ToString() const;

  friend bool operator==(const TensorPart& a, const TensorPart& b) { return a.tensor == b.tensor && a.box == b.box; }
};

// Each tensor as a part that is the whole tensor.
std::vector<TensorPart> WholeParts(std::vector<TensorSpec> tensors);

// Maps runs of a box's elements to places in the whole tensor.
class BoxRuns {
 public:
  BoxRuns(absl::Span<const int64_t> shape, const Box& box);

  // The number of elements of the box that are contiguous in the tensor.
  int64_t run_length() const { return run_length_; }
  // Whether the whole box is contiguous, from offset() on.
  bool is_contiguous() const { return outer_sizes_.empty(); }
  // Index in the tensor of the first element.
  int64_t offset() const { return offset_; }

  // Calls `visit(place, count)` for each contiguous piece of the box's elements [first, first + count), in order.
  // `place` is an index of the tensor's elements.
  void ForEach(int64_t first, int64_t count, absl::FunctionRef<void(int64_t place, int64_t count)> visit) const;

 private:
  int64_t PlaceOfRun(int64_t run) const;

  int64_t offset_ = 0;
  int64_t run_length_ = 1;
  // Sizes of the dimensions outside of a run, innermost first.
  std::vector<int64_t> outer_sizes_;
  std::vector<int64_t> outer_strides_;
};

}  // namespace refit

// Boxes: axis-aligned parts of a tensor, as ranks hold them and as workers ask for them.
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

// All below need a valid box.

// Number of elements; 0 for an empty box.
int64_t ElementCount(const Box& box);
bool IsWhole(const Box& box, absl::Span<const int64_t> shape);
// What two boxes of one tensor have in common; nullopt if that is nothing.
std::optional<Box> Intersection(const Box& a, const Box& b);
// "[0:16, 352:704]", begin and end of each dimension.
std::string ToString(const Box& box);

// How a dimension of n elements is cut into parts where it does not come out even.
enum class Split {
  // n / parts each, the first n % parts have one more: expert parallelism, as the reference adapter has it
  // (get_expert_range_for_rank).
  kBalanced,
  // ceil(n / parts) each, the last ones less or nothing: torch.chunk, so FSDP and DTensor's Shard(dim).
  kCeil,
};

// Part number `part` of `parts` of the box along one dimension. May be empty. Needs dimension < rank, part < parts.
Box Cut(const Box& box, size_t dimension, Split split, uint64_t part, uint64_t parts);

// If the boxes, none of them empty, tile the shape: every element in exactly one. Otherwise where they do not.
struct TilingError {
  // Two boxes that overlap (indices), or
  std::optional<std::pair<size_t, size_t>> overlap;
  // a part of the tensor that no box has.
  std::optional<Box> missing;
};
std::optional<TilingError> CheckTiling(absl::Span<const int64_t> shape, absl::Span<const Box> boxes);

// A box of a tensor: a rank's shard, or a worker's part. Its own elements are row-major in the box.
struct TensorPart {
  TensorSpec tensor;  // the whole, with its global shape
  Box box;

  static TensorPart Whole(TensorSpec tensor);
  bool is_whole() const { return IsWhole(box, tensor.shape); }
  // The part as a tensor of its own: shaped as the box.
  TensorSpec spec() const { return {tensor.name, tensor.dtype, box.sizes}; }
  // Of the part.
  uint64_t ByteSize() const { return static_cast<uint64_t>(ElementCount(box)) * ElementSize(tensor.dtype); }
  // "model.norm.weight BF16 [2816]", or with "[0:704] of it" appended.
  std::string ToString() const;

  friend bool operator==(const TensorPart& a, const TensorPart& b) { return a.tensor == b.tensor && a.box == b.box; }
};

// Each tensor as a part that is all of it.
std::vector<TensorPart> WholeParts(std::vector<TensorSpec> tensors);

// Maps runs of a box's own elements to places in the tensor that it lies in.
class BoxRuns {
 public:
  BoxRuns(absl::Span<const int64_t> shape, const Box& box);

  // Elements of the box that stand in one piece in the tensor.
  int64_t run_length() const { return run_length_; }
  // The whole box stands in one piece, from offset() on.
  bool is_contiguous() const { return outer_sizes_.empty(); }
  // The first element's place in the tensor.
  int64_t offset() const { return offset_; }

  // Calls `visit(place, count)` for each piece of the box's elements [first, first + count), in order; `place` counts
  // the tensor's elements.
  void ForEach(int64_t first, int64_t count, absl::FunctionRef<void(int64_t place, int64_t count)> visit) const;

 private:
  int64_t PlaceOfRun(int64_t run) const;

  int64_t offset_ = 0;
  int64_t run_length_ = 1;
  // The dimensions outside of a run, innermost first.
  std::vector<int64_t> outer_sizes_;
  std::vector<int64_t> outer_strides_;
};

}  // namespace refit

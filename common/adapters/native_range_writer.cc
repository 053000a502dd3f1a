#include "common/adapters/native_range_writer.h"

#include <algorithm>
#include <optional>

#include "common/tensor/float_environment.h"
#include "common/tensor/kernels.h"

namespace refit {
namespace {

using Written = absl::FunctionRef<void(const StridedRuns&)>;

struct Matrix {
  int64_t rows;
  int64_t columns;
  int64_t size() const { return rows * columns; }
};

// The tensor as matrices to be transposed: its last two dimensions.
Matrix MatrixOf(absl::Span<const int64_t> shape) {
  const size_t rank = shape.size();
  return {shape[rank - 2], shape[rank - 1]};
}

// The transpose of a vector has the same order of elements.
bool KeepsOrder(absl::Span<const int64_t> shape, Transform transform) {
  if (transform == Transform::kFirstToLast) return shape[0] <= 1;
  if (transform != Transform::kTransposeLastTwo) return true;
  const Matrix matrix = MatrixOf(shape);
  return matrix.rows <= 1 || matrix.columns <= 1;
}

// How many of the `left` elements from `offset` of a matrix form one block: the rest of a row, all whole rows, or the
// beginning of the last row.
int64_t BlockSize(const Matrix& matrix, int64_t offset, int64_t left) {
  const int64_t column = offset % matrix.columns;
  if (column != 0) return std::min(left, matrix.columns - column);
  const int64_t whole_rows = std::min(left, matrix.size() - offset) / matrix.columns;
  return whole_rows > 0 ? whole_rows * matrix.columns : left;
}

// How many of the box's elements come before the element number `place` of the shape.
int64_t ElementsBefore(absl::Span<const int64_t> shape, const Box& box, int64_t place) {
  if (shape.empty()) return std::min<int64_t>(place, 1);
  int64_t shape_stride = 1;
  int64_t box_stride = 1;
  for (size_t d = 0; d < shape.size(); ++d) {
    shape_stride *= shape[d];
    box_stride *= box.sizes[d];
  }
  int64_t before = 0;
  for (size_t d = 0; d < shape.size(); ++d) {
    shape_stride /= shape[d];
    box_stride /= box.sizes[d];
    const int64_t index = place / shape_stride - box.offsets[d];
    before += std::clamp<int64_t>(index, 0, box.sizes[d]) * box_stride;
    if (index < 0 || index >= box.sizes[d]) return before;
    place %= shape_stride;
  }
  return before;
}

// The elements [first, first + count) of a part, which lies within the shard whose bytes came.
class Range {
 public:
  // `bytes` are the shard's elements from number `begin` on.
  Range(const TensorPart& shard, const Box& in_shard, int64_t begin, absl::Span<const std::byte> bytes)
      : size_(static_cast<int64_t>(ElementSize(shard.tensor.dtype))),
        runs_(shard.box.sizes, in_shard),
        begin_(begin),
        bytes_(bytes.data()),
        pitch_(shard.box.sizes.empty() ? 1 : shard.box.sizes.back()) {
    const int64_t count = static_cast<int64_t>(bytes.size()) / size_;
    first_ = ElementsBefore(shard.box.sizes, in_shard, begin);
    end_ = ElementsBefore(shard.box.sizes, in_shard, begin + count);
  }

  int64_t first() const { return first_; }
  int64_t end() const { return end_; }
  // Elements from one row of the shard's matrices to the next.
  int64_t pitch() const { return pitch_; }

  // Calls `visit(first, count, source)` for each run that is contiguous in the shard.
  void ForEachRun(absl::FunctionRef<void(int64_t first, int64_t count, const std::byte* source)> visit) const {
    int64_t first = first_;
    runs_.ForEach(first_, end_ - first_, [&](int64_t place, int64_t count) {
      visit(first, count, bytes_ + (place - begin_) * size_);
      first += count;
    });
  }

  // Where one element of the part is.
  const std::byte* At(int64_t element) const {
    const std::byte* source = nullptr;
    runs_.ForEach(element, 1, [&](int64_t place, int64_t) { source = bytes_ + (place - begin_) * size_; });
    return source;
  }

 private:
  const int64_t size_;
  const BoxRuns runs_;
  const int64_t begin_;
  const std::byte* const bytes_;
  const int64_t pitch_;
  int64_t first_ = 0;
  int64_t end_ = 0;
};

void WriteInOrder(const TensorPart& part, DType to, const Range& range, std::byte* hf, Written written) {
  const DType from = part.tensor.dtype;
  const auto from_size = static_cast<int64_t>(ElementSize(from));
  const auto to_size = static_cast<int64_t>(ElementSize(to));
  const BoxRuns places(part.tensor.shape, part.box);
  range.ForEachRun([&](int64_t first, int64_t count, const std::byte* source) {
    places.ForEach(first, count, [&](int64_t place, int64_t length) {
      ConvertElements(from, to, source, hf + place * to_size, length);
      written({place, 1, length, length});
      source += length * from_size;
    });
  });
}

// Whoever writes the last element before the padding writes what stands behind it, too: so all is written once.
void WritePadded(const TensorPart& part, const PlannedOutput& output, const Range& range, std::byte* hf,
                 Written written) {
  const size_t d = *output.padded_dimension;
  const Shape& sizes = part.tensor.shape;
  TensorPart target = part;
  target.tensor.shape[d] = output.hf.shape[d - (sizes.size() - output.hf.shape.size())];
  const int64_t size = sizes[d];
  const int64_t padded = target.tensor.shape[d];
  int64_t inner = 1;
  for (size_t i = d + 1; i < sizes.size(); ++i) inner *= sizes[i];
  const auto element = static_cast<int64_t>(ElementSize(output.hf.dtype));
  WriteInOrder(target, output.hf.dtype, range, hf, [&](const StridedRuns& run) {
    written(run);
    for (int64_t first = run.first, left = run.length; left > 0;) {
      const int64_t to_last = (size - 1 - first / inner % padded) * inner - first % inner;
      const int64_t piece = to_last > 0 ? std::min(left, to_last) : std::min(left, inner - first % inner);
      for (int64_t row = size; row < padded && to_last <= 0; ++row) {
        const int64_t place = first + (row - size + 1) * inner;
        std::fill_n(hf + place * element, piece * element, std::byte{0});
        written({place, 1, piece, piece});
      }
      first += piece;
      left -= piece;
    }
  });
}

// Dimension 0 becomes the last.
void WriteFirstToLast(const TensorPart& part, DType to, const Range& range, std::byte* hf, Written written) {
  const DType from = part.tensor.dtype;
  const auto from_size = static_cast<int64_t>(ElementSize(from));
  const auto to_size = static_cast<int64_t>(ElementSize(to));
  const int64_t rows = part.tensor.shape[0];
  const int64_t columns = ElementCount(WholeBox(part.tensor.shape)) / rows;
  const BoxRuns places(part.tensor.shape, part.box);
  range.ForEachRun([&](int64_t first, int64_t count, const std::byte* source) {
    places.ForEach(first, count, [&](int64_t place, int64_t length) {
      while (length > 0) {
        const int64_t within = place % columns;
        const int64_t piece = std::min(length, columns - within);
        const int64_t target = within * rows + place / columns;
        TransposeElements(from, to, source, piece, hf + target * to_size, rows, 1, piece);
        written({target, piece, 1, rows});
        source += piece * from_size;
        place += piece;
        length -= piece;
      }
    });
  });
}

// The places of the shard's matrices within the tensor's matrices.
class MatrixPlaces {
 public:
  explicit MatrixPlaces(const TensorPart& shard)
      : rank_(shard.box.sizes.size()),
        matrix_(MatrixOf(shard.tensor.shape).size()),
        outer_(absl::MakeConstSpan(shard.tensor.shape).first(rank_ - 2), OuterBox(shard.box)) {}

  // The tensor's element at which that matrix begins which contains the shard's matrix number `index`.
  int64_t Begin(int64_t index) const {
    int64_t begin = 0;
    outer_.ForEach(index, 1, [&](int64_t place, int64_t) { begin = place * matrix_; });
    return begin;
  }

 private:
  static Box OuterBox(const Box& box) {
    return {Shape(box.offsets.begin(), box.offsets.end() - 2), Shape(box.sizes.begin(), box.sizes.end() - 2)};
  }

  const size_t rank_;
  const int64_t matrix_;
  const BoxRuns outer_;
};

void WriteTransposed(const TensorPart& part, DType to, const Range& range, std::byte* hf, Written written) {
  const DType from = part.tensor.dtype;
  const auto to_size = static_cast<int64_t>(ElementSize(to));
  const Matrix whole = MatrixOf(part.tensor.shape);
  const Matrix own = MatrixOf(part.box.sizes);
  const Matrix offset = MatrixOf(part.box.offsets);
  const MatrixPlaces places(part);
  for (int64_t first = range.first(); first < range.end();) {
    const int64_t within = first % own.size();
    const int64_t row = within / own.columns;
    const int64_t column = within % own.columns;
    const int64_t block = BlockSize(own, within, range.end() - first);
    const int64_t rows = std::max<int64_t>(1, block / own.columns);
    const int64_t columns = block / rows;
    const int64_t place = places.Begin(first / own.size()) + (offset.columns + column) * whole.rows + offset.rows + row;
    TransposeElements(from, to, range.At(first), range.pitch(), hf + place * to_size, whole.rows, rows, columns);
    written({place, columns, rows, whole.rows});
    first += block;
  }
}

void Write(const TensorPart& part, const PlannedOutput& output, const Range& range, std::byte* hf, Written written) {
  if (range.first() == range.end()) return;
  const DefaultFloatEnvironment environment;
  if (output.padded_dimension.has_value()) return WritePadded(part, output, range, hf, written);
  if (KeepsOrder(part.tensor.shape, output.transform)) return WriteInOrder(part, output.hf.dtype, range, hf, written);
  if (output.transform == Transform::kFirstToLast) return WriteFirstToLast(part, output.hf.dtype, range, hf, written);
  WriteTransposed(part, output.hf.dtype, range, hf, written);
}

// The box, with offsets counted from those of `origin`.
Box Relative(Box box, const Box& origin) {
  for (size_t d = 0; d < box.offsets.size(); ++d) box.offsets[d] -= origin.offsets[d];
  return box;
}

}  // namespace

bool Needs(const PlannedOutput& output, const TensorPart& shard) {
  if (!output.box.has_value()) return true;
  for (size_t d = 0; d < shard.box.sizes.size(); ++d) {
    const int64_t begin = std::max(shard.box.offsets[d], output.box->offsets[d]);
    const int64_t end =
        std::min(shard.box.offsets[d] + shard.box.sizes[d], output.box->offsets[d] + output.box->sizes[d]);
    if (begin >= end) return false;
  }
  return true;
}

bool Needs(const PlannedOutput& output, const TensorPart& shard, uint64_t offset, uint64_t size) {
  if (!output.box.has_value() || size == 0) return true;
  // The rows of dimension 0 that the bytes lie in. Many outputs of a tensor differ in them alone.
  const uint64_t row_bytes = shard.ByteSize() / static_cast<uint64_t>(shard.box.sizes[0]);
  const int64_t first = shard.box.offsets[0] + static_cast<int64_t>(offset / row_bytes);
  const int64_t last = shard.box.offsets[0] + static_cast<int64_t>((offset + size - 1) / row_bytes);
  const int64_t begin = output.box->offsets[0];
  return first < begin + output.box->sizes[0] && last >= begin && Needs(output, shard);
}

void WriteNativeRange(const TensorPart& shard, const PlannedOutput& output, uint64_t shard_offset,
                      absl::Span<const std::byte> bytes, std::byte* hf, Written written) {
  if (bytes.empty()) return;
  const auto first = static_cast<int64_t>(shard_offset / ElementSize(shard.tensor.dtype));
  if (!output.box.has_value()) {
    return Write(shard, output, Range(shard, WholeBox(shard.box.sizes), first, bytes), hf, written);
  }
  const std::optional<Box> common = Intersection(shard.box, *output.box);
  if (!common.has_value()) return;
  const TensorPart part{{"", shard.tensor.dtype, output.box->sizes}, Relative(*common, *output.box)};
  Write(part, output, Range(shard, Relative(*common, shard.box), first, bytes), hf, written);
}

}  // namespace refit

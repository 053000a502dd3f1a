#include "common/adapters/native_range_writer.h"

#include <algorithm>

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
bool KeepsOrder(const TensorSpec& native, const PlannedOutput& output) {
  if (output.transform != Transform::kTransposeLastTwo) return true;
  const Matrix matrix = MatrixOf(native.shape);
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

// The elements [first, first + count) of the shard, read from `source`.
struct Range {
  int64_t first;
  int64_t count;
  const std::byte* source;
};

void WriteInOrder(const TensorPart& shard, DType to, Range range, std::byte* hf, Written written) {
  const DType from = shard.tensor.dtype;
  const auto from_size = static_cast<int64_t>(ElementSize(from));
  const auto to_size = static_cast<int64_t>(ElementSize(to));
  BoxRuns(shard.tensor.shape, shard.box).ForEach(range.first, range.count, [&](int64_t place, int64_t count) {
    ConvertElements(from, to, range.source, hf + place * to_size, count);
    written({place, 1, count, count});
    range.source += count * from_size;
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

void WriteTransposed(const TensorPart& shard, DType to, Range range, std::byte* hf, Written written) {
  const DType from = shard.tensor.dtype;
  const auto from_size = static_cast<int64_t>(ElementSize(from));
  const auto to_size = static_cast<int64_t>(ElementSize(to));
  const Matrix whole = MatrixOf(shard.tensor.shape);
  const Matrix part = MatrixOf(shard.box.sizes);
  const Matrix offset = MatrixOf(shard.box.offsets);
  const MatrixPlaces places(shard);
  while (range.count > 0) {
    const int64_t within = range.first % part.size();
    const int64_t row = within / part.columns;
    const int64_t column = within % part.columns;
    const int64_t block = BlockSize(part, within, range.count);
    const int64_t rows = std::max<int64_t>(1, block / part.columns);
    const int64_t columns = block / rows;
    const int64_t place =
        places.Begin(range.first / part.size()) + (offset.columns + column) * whole.rows + offset.rows + row;
    TransposeElements(from, to, range.source, part.columns, hf + place * to_size, whole.rows, rows, columns);
    written({place, columns, rows, whole.rows});
    range.first += block;
    range.count -= block;
    range.source += block * from_size;
  }
}

}  // namespace

void WriteNativeRange(const TensorPart& shard, const PlannedOutput& output, uint64_t shard_offset,
                      absl::Span<const std::byte> bytes, std::byte* hf, Written written) {
  const auto size = static_cast<int64_t>(ElementSize(shard.tensor.dtype));
  const Range range{static_cast<int64_t>(shard_offset) / size, static_cast<int64_t>(bytes.size()) / size, bytes.data()};
  if (range.count == 0) return;
  const DefaultFloatEnvironment environment;
  if (KeepsOrder(shard.tensor, output)) {
    WriteInOrder(shard, output.hf.dtype, range, hf, written);
  } else {
    WriteTransposed(shard, output.hf.dtype, range, hf, written);
  }
}

}  // namespace refit

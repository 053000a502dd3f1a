#include "common/adapters/native_range_writer.h"

#include <algorithm>

#include "common/tensor/kernels.h"

namespace refit {
namespace {

// The matrices that are transposed: the last two dimensions of the native tensor.
struct Matrix {
  int64_t rows;
  int64_t columns;
  int64_t size() const { return rows * columns; }
};

Matrix MatrixOf(const TensorSpec& native) {
  const size_t rank = native.shape.size();
  return {native.shape[rank - 2], native.shape[rank - 1]};
}

// A vector's transpose has its elements in the same order.
bool KeepsOrder(const TensorSpec& native, const PlannedOutput& output) {
  if (output.transform != Transform::kTransposeLastTwo) return true;
  const Matrix matrix = MatrixOf(native);
  return matrix.rows <= 1 || matrix.columns <= 1;
}

// How many of the `left` elements from `offset` within a matrix on make one block: the rest of a row that was begun,
// all whole rows, or the beginning of a last row.
int64_t BlockSize(const Matrix& matrix, int64_t offset, int64_t left) {
  const int64_t column = offset % matrix.columns;
  if (column != 0) return std::min(left, matrix.columns - column);
  const int64_t whole_rows = std::min(left, matrix.size() - offset) / matrix.columns;
  return whole_rows > 0 ? whole_rows * matrix.columns : left;
}

}  // namespace

void WriteNativeRange(const TensorSpec& native, const PlannedOutput& output, uint64_t native_offset,
                      absl::Span<const std::byte> bytes, std::byte* hf) {
  const int64_t native_size = static_cast<int64_t>(ElementSize(native.dtype));
  const int64_t hf_size = static_cast<int64_t>(ElementSize(output.hf.dtype));
  const int64_t count = static_cast<int64_t>(bytes.size()) / native_size;
  int64_t element = static_cast<int64_t>(native_offset) / native_size;
  if (count == 0) return;
  if (KeepsOrder(native, output)) {
    ConvertElements(native.dtype, output.hf.dtype, bytes.data(), hf + element * hf_size, count);
    return;
  }

  const Matrix matrix = MatrixOf(native);
  const std::byte* source = bytes.data();
  for (int64_t left = count; left > 0;) {
    const int64_t within = element % matrix.size();
    const int64_t row = within / matrix.columns;
    const int64_t column = within % matrix.columns;
    const int64_t block = BlockSize(matrix, within, left);
    const int64_t rows = std::max<int64_t>(1, block / matrix.columns);
    std::byte* place = hf + (element - within + column * matrix.rows + row) * hf_size;
    TransposeElements(native.dtype, output.hf.dtype, source, matrix.columns, place, matrix.rows, rows, block / rows);
    source += block * native_size;
    element += block;
    left -= block;
  }
}

uint64_t ConvertedPrefix(const TensorSpec& native, const PlannedOutput& output, uint64_t native_end) {
  uint64_t elements = native_end / ElementSize(native.dtype);
  if (!KeepsOrder(native, output)) {
    elements -= elements % static_cast<uint64_t>(MatrixOf(native).size());
  }
  return elements * ElementSize(output.hf.dtype);
}

}  // namespace refit

#include "common/adapters/hf_range_writer.h"

#include <utility>

#include "common/adapters/native_range_writer.h"

namespace refit {

// A transposition undoes a transposition: what writes native bytes into HF tensors does the same the other way, with
// the HF tensor as a shard of the transposed native one.
void WriteHfTensor(const TensorSpec& native, const PlannedOutput& output, absl::Span<const std::byte> bytes,
                   DType dtype, std::byte* memory) {
  TensorPart part{native, output.box.value_or(WholeBox(native.shape))};
  PlannedOutput back;
  back.hf = {native.name, dtype, native.shape};
  Shape& shape = part.tensor.shape;
  const size_t rank = shape.size();
  if (output.transform == Transform::kTransposeLastTwo) {
    back.transform = Transform::kTransposeLastTwo;
    for (Shape* sizes : {&shape, &part.box.offsets, &part.box.sizes}) std::swap((*sizes)[rank - 1], (*sizes)[rank - 2]);
  } else if (output.transform == Transform::kFirstToLast) {
    back.transform = Transform::kTransposeLastTwo;
    int64_t behind = 1;
    for (size_t d = 1; d < rank; ++d) behind *= shape[d];
    shape = {behind, shape[0]};
    part.box = WholeBox(shape);
    back.hf.shape = {shape[1], shape[0]};
  }
  WriteNativeRange(part, back, 0, bytes, memory);
}

}  // namespace refit

#include "common/net/messages.h"

#include "absl/strings/str_cat.h"
#include "common/net/status.h"

namespace refit {

void ToProto(const TensorSpec& spec, v1::TensorSpec& proto) {
  proto.Clear();
  proto.set_name(spec.name);
  proto.set_dtype(static_cast<v1::DType>(spec.dtype));
  proto.mutable_shape()->Assign(spec.shape.begin(), spec.shape.end());
}

absl::StatusOr<TensorSpec> FromProto(const v1::TensorSpec& proto, size_t max_name_bytes) {
  const absl::StatusOr<DType> dtype = DTypeFromWire(proto.dtype());
  if (!dtype.ok()) return Annotate(dtype.status(), absl::StrCat("tensor ", Printable(proto.name())));
  TensorSpec spec{proto.name(), *dtype, Shape(proto.shape().begin(), proto.shape().end())};
  if (absl::Status status = Validate(spec, max_name_bytes); !status.ok()) return status;
  return spec;
}

ChunkHeader HeaderOf(const v1::Chunk& chunk) {
  ChunkHeader header{chunk.tensor(), chunk.offset(), chunk.encoding(), chunk.decoded_bytes(), chunk.digest()};
  if (chunk.has_tensor_digest()) header.tensor_digest = chunk.tensor_digest();
  return header;
}

}  // namespace refit

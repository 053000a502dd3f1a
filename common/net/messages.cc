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

void ToProto(const Box& box, v1::Box& proto) {
  proto.mutable_offsets()->Assign(box.offsets.begin(), box.offsets.end());
  proto.mutable_sizes()->Assign(box.sizes.begin(), box.sizes.end());
}

Box FromProto(const v1::Box& proto) {
  return {Shape(proto.offsets().begin(), proto.offsets().end()), Shape(proto.sizes().begin(), proto.sizes().end())};
}

void ToProto(const LayoutRule& rule, v1::LayoutRule& proto) {
  proto.set_scope(static_cast<v1::TensorScope>(rule.scope));
  proto.set_pattern(rule.pattern);
  proto.set_dimension(rule.dimension);
  proto.set_part(rule.part);
  proto.set_parts(rule.parts);
  proto.set_split(static_cast<v1::Split>(rule.split));
  proto.set_exclusive(rule.exclusive);
}

absl::StatusOr<LayoutRule> FromProto(const v1::LayoutRule& proto) {
  if (!v1::TensorScope_IsValid(proto.scope()) || !v1::Split_IsValid(proto.split())) {
    return absl::InvalidArgumentError(
        absl::StrCat("a layout rule with scope ", proto.scope(), " and split ", proto.split(), ", which is not known"));
  }
  return LayoutRule{static_cast<LayoutRule::Scope>(proto.scope()),
                    proto.pattern(),
                    proto.dimension(),
                    proto.part(),
                    proto.parts(),
                    static_cast<Split>(proto.split()),
                    proto.exclusive()};
}

ChunkHeader HeaderOf(const v1::Chunk& chunk) {
  ChunkHeader header{chunk.tensor(), chunk.offset(), chunk.encoding(), chunk.decoded_bytes(), chunk.digest()};
  if (chunk.has_tensor_digest()) header.tensor_digest = chunk.tensor_digest();
  return header;
}

ChunkView ViewOf(const v1::Chunk& chunk) {
  const std::string& payload = chunk.payload();
  return {HeaderOf(chunk), {reinterpret_cast<const std::byte*>(payload.data()), payload.size()}};
}

std::vector<ChunkView> ViewsOf(const v1::ChunkBatch& batch) {
  std::vector<ChunkView> views;
  views.reserve(batch.chunks_size());
  for (const v1::Chunk& chunk : batch.chunks()) views.push_back(ViewOf(chunk));
  return views;
}

void ToProto(const ChunkHeader& header, v1::Chunk& proto) {
  proto.set_tensor(header.tensor);
  proto.set_offset(header.offset);
  proto.set_encoding(static_cast<v1::ChunkEncoding>(header.encoding));
  proto.set_decoded_bytes(header.decoded_bytes);
  proto.set_digest(header.digest);
  if (header.tensor_digest.has_value()) proto.set_tensor_digest(*header.tensor_digest);
}

}  // namespace refit

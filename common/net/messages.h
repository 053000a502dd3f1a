// Converts between our own types and their protobuf messages.
#pragma once

#include "absl/status/statusor.h"
#include "common/wire/chunk_codec.h"
#include "refit/box.h"
#include "refit/layout_rule.h"
#include "refit/tensor_spec.h"
#include "refit/v1/pull.pb.h"
#include "refit/v1/types.pb.h"

namespace refit {

void ToProto(const TensorSpec& spec, v1::TensorSpec& proto);

// INVALID_ARGUMENT, naming the tensor, for an unknown dtype or if Validate rejects it.
absl::StatusOr<TensorSpec> FromProto(const v1::TensorSpec& proto, size_t max_name_bytes = kMaxNameBytes);

void ToProto(const Box& box, v1::Box& proto);
// Not validated against any shape.
Box FromProto(const v1::Box& proto);

void ToProto(const LayoutRule& rule, v1::LayoutRule& proto);
// INVALID_ARGUMENT for an unknown scope or split.
absl::StatusOr<LayoutRule> FromProto(const v1::LayoutRule& proto);

// The chunk without its payload.
ChunkHeader HeaderOf(const v1::Chunk& chunk);
// Valid as long as the message.
ChunkView ViewOf(const v1::Chunk& chunk);
std::vector<ChunkView> ViewsOf(const v1::ChunkBatch& batch);
void ToProto(const ChunkHeader& header, v1::Chunk& proto);

}  // namespace refit

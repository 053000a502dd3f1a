// Between our own types and their protobuf messages.
#pragma once

#include "absl/status/statusor.h"
#include "common/tensor/tensor_spec.h"
#include "common/wire/chunk_codec.h"
#include "refit/v1/types.pb.h"

namespace refit {

void ToProto(const TensorSpec& spec, v1::TensorSpec& proto);

// INVALID_ARGUMENT, naming the tensor, for an unknown dtype or what Validate refuses.
absl::StatusOr<TensorSpec> FromProto(const v1::TensorSpec& proto, size_t max_name_bytes = kMaxNameBytes);

// All of the chunk but its payload.
ChunkHeader HeaderOf(const v1::Chunk& chunk);

}  // namespace refit

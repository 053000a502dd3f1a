// Shards as torch.distributed.checkpoint's HuggingFaceStorageWriter saves them, and so NeMo Automodel: each rank writes
// what it holds of the tensors into files of its own, and says where that begins in the whole tensors, but not how
// large these are. Private to common/safetensors.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "refit/shape.h"

namespace refit {

// The metadata key of such a file.
inline constexpr char kDcpShardingKey[] = "DCP_SHARDING_INFO";

// The key's value, {tensor: {"saved_offsets": [one a dimension]}, ...}. INVALID_ARGUMENT, naming the tensor, for any
// other.
absl::StatusOr<std::map<std::string, Shape>> ParseDcpOffsets(absl::string_view json);

// Which rank wrote a file, from 1: 3 for shard-00003-model-00001-of-00002.safetensors. nullopt for another kind of
// name.
std::optional<uint64_t> DcpRankOf(absl::string_view file_name);

}  // namespace refit

// Parses shards that torch.distributed.checkpoint's HuggingFaceStorageWriter saved, which NeMo Automodel uses. Each
// rank writes its parts of the tensors into files of its own, with the offset of each part in the whole tensor but not
// the size of the whole. Private to common/safetensors.
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

// Parses the key's value, {tensor: {"saved_offsets": [one for each dimension]}, ...}. INVALID_ARGUMENT, naming the
// tensor, for anything else.
absl::StatusOr<std::map<std::string, Shape>> ParseDcpOffsets(absl::string_view json);

// The rank that wrote a file, from 1: 3 for shard-00003-model-00001-of-00002.safetensors. nullopt for other names.
std::optional<uint64_t> DcpRankOf(absl::string_view file_name);

}  // namespace refit

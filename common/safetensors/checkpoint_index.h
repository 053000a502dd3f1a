// Reads the index of a checkpoint folder. Private to common/safetensors.
#pragma once

#include <map>
#include <set>
#include <string>

#include "absl/status/statusor.h"

namespace refit {

inline constexpr char kIndexName[] = "model.safetensors.index.json";

// The tensors of each file, by file name.
using FileMap = std::map<std::string, std::set<std::string>>;

// Reads {"weight_map": {tensor: file}, ...}, and ignores other keys. INVALID_ARGUMENT, naming `path`, if it is not such
// JSON, has a tensor twice, or names files outside of its folder.
absl::StatusOr<FileMap> ReadIndex(const std::string& path);

}  // namespace refit

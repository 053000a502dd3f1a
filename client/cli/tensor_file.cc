#include "client/cli/tensor_file.h"

#include <algorithm>
#include <map>
#include <utility>

#include "common/safetensors/shard_metadata.h"

namespace refit::cli {

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> CreateTensorFile(const std::string& path,
                                                                    const std::vector<TensorPart>& tensors) {
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  if (!std::all_of(tensors.begin(), tensors.end(), [](const TensorPart& part) { return part.is_whole(); })) {
    absl::StatusOr<std::string> shards = FormatShardMetadata(tensors);
    if (!shards.ok()) return shards.status();
    metadata[kShardsKey] = *std::move(shards);
  }
  std::vector<TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const TensorPart& part : tensors) specs.push_back(part.spec());
  return SafetensorsWriter::Create(path, std::move(specs), metadata);
}

}  // namespace refit::cli

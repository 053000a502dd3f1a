// Reads and writes the metadata key "refit.shards", which says which parts of which tensors a file holds.
//
// Its value is a JSON object, {tensor: {"shape": [global shape], "offsets": [one for each dimension]}, ...}. The file's
// tensor of that name is a box of a tensor with the global shape: the box begins at the offsets, and has the shape of
// the file's tensor. An entry that also has a "dtype" may name a tensor that is not in the file: this rank holds
// nothing of it. Tensors without an entry are whole.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/safetensors/safetensors.h"
#include "refit/box.h"

namespace refit {

inline constexpr char kShardsKey[] = "refit.shards";

// One entry of the object.
struct ShardEntry {
  std::string name;
  Shape shape;  // global shape
  std::optional<Shape> offsets;
  std::optional<DType> dtype;

  friend bool operator==(const ShardEntry& a, const ShardEntry& b) {
    return a.name == b.name && a.shape == b.shape && a.offsets == b.offsets && a.dtype == b.dtype;
  }
};

// The entries in the object's order. INVALID_ARGUMENT, naming the tensor, for a value that is not such JSON, a repeated
// name or key, numbers that are not integers from 0 to 2^63-1, or more than kMaxRank of them.
absl::StatusOr<std::vector<ShardEntry>> ParseShardMetadata(absl::string_view json);

// The value of kShardsKey for a file that holds these parts, with an entry for each. INVALID_ARGUMENT for a name that
// is not valid UTF-8.
absl::StatusOr<std::string> FormatShardMetadata(absl::Span<const TensorPart> parts);

// A shard, and the place of its bytes.
struct FileShard {
  TensorPart part;
  // Index of the checkpoint's tensor; nullopt if the files do not hold it, and the box is empty.
  std::optional<size_t> index;
};

// The shards in a checkpoint according to its files' metadata; nullopt if no file has kShardsKey. First the tensors
// named there, in that order (files by name; equal entries of several files count once), then the whole ones in file
// order. INVALID_ARGUMENT, naming file and tensor, as ParseShardMetadata, and if entries contradict each other or do
// not match the tensors: another rank or dtype, a box that is out of bounds, a shape that is too large, or neither data
// nor dtype.
absl::StatusOr<std::optional<std::vector<FileShard>>> ReadShards(const Checkpoint& checkpoint);

}  // namespace refit

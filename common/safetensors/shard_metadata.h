// Files that hold shards: the metadata key "refit.shards" says of which tensors, and where in them.
//
// Its value is a JSON object, {tensor: {"shape": [global shape], "offsets": [one a dimension]}, ...}: the file's tensor
// of that name is the box of its own shape, at these offsets, of a tensor of the global shape. An entry with a "dtype"
// besides may name a tensor that the file does not hold: this rank has nothing of it. Tensors that the object does not
// name are whole.
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
  Shape shape;  // global
  std::optional<Shape> offsets;
  std::optional<DType> dtype;

  friend bool operator==(const ShardEntry& a, const ShardEntry& b) {
    return a.name == b.name && a.shape == b.shape && a.offsets == b.offsets && a.dtype == b.dtype;
  }
};

// The entries in the object's order. INVALID_ARGUMENT, naming the tensor, for what is no JSON or another one, a name
// or a key that is there twice, numbers that are no whole ones from 0 to 2^63-1, or more than kMaxRank of them.
absl::StatusOr<std::vector<ShardEntry>> ParseShardMetadata(absl::string_view json);

// The value of kShardsKey for a file that holds these parts, an entry each. INVALID_ARGUMENT for a name that is no
// valid UTF-8.
absl::StatusOr<std::string> FormatShardMetadata(absl::Span<const TensorPart> parts);

// A shard, and where its bytes are.
struct FileShard {
  TensorPart part;
  // Into the checkpoint's tensors; nullopt if the files do not hold it, and the box is empty.
  std::optional<size_t> index;
};

// What a checkpoint holds according to its files' metadata; nullopt if none has kShardsKey. First the tensors named
// there, in that order (files in order of their names; what several say alike counts once), then the whole ones in file
// order. INVALID_ARGUMENT, naming file and tensor, as ParseShardMetadata, and where entries contradict each other or
// do not fit the tensors: another rank or dtype, a box that is out of bounds, a shape that is too large, or no data and
// no dtype.
absl::StatusOr<std::optional<std::vector<FileShard>>> ReadShards(const Checkpoint& checkpoint);

}  // namespace refit

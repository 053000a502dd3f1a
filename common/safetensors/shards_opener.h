// Opens a checkpoint from the shards of all ranks of torch.distributed.checkpoint. Private to common/safetensors.
#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/safetensors/safetensors.h"
#include "refit/shape.h"

namespace refit {

// Fills a checkpoint that is not in use yet. The files contain the offset of each shard, see dcp_shards.h. A tensor's
// size is derived from the ends of its shards.
class Checkpoint::ShardsOpener {
 public:
  ShardsOpener(Checkpoint& checkpoint, const CheckpointOptions& options) : checkpoint_(checkpoint), options_(options) {}

  absl::Status Open(const std::string& folder, const std::vector<std::string>& paths);

  // Refuses a single rank's file, even if it could be read as a model: the first rank's tensors begin at 0, as whole
  // ones do. Only an index proves that a file holds whole tensors.
  static absl::Status Refuse(const SafetensorsFile& file, bool is_indexed);

 private:
  absl::Status AddShards(const std::string& path);
  // Adds tensor `index` of the last file as a shard, which begins at `begin` in the whole tensor.
  absl::Status AddShard(size_t index, const Shape& begin);
  // Checks that its shards tile it.
  absl::Status CheckWhole(size_t index) const;

  Checkpoint& checkpoint_;
  const CheckpointOptions& options_;
  std::map<std::string, size_t> places_;  // of sharded tensors, as indices of the checkpoint's tensors
  std::set<std::string> broken_;          // excluded tensors whose shards do not fit
};

}  // namespace refit

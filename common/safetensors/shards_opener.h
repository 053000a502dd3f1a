// How a checkpoint comes of the shards that all ranks of torch.distributed.checkpoint saved. Private to
// common/safetensors.
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

// Fills a checkpoint that nobody else sees yet. The files say where each shard begins, see dcp_shards.h; a tensor is as
// large as its shards reach.
class Checkpoint::ShardsOpener {
 public:
  ShardsOpener(Checkpoint& checkpoint, const CheckpointOptions& options) : checkpoint_(checkpoint), options_(options) {}

  absl::Status Open(const std::string& folder, const std::vector<std::string>& paths);

  // A rank's file is no model, even where it could be read as one: the first rank's tensors begin at 0 as whole ones
  // do. Only an index says that a file is a whole one.
  static absl::Status Refuse(const SafetensorsFile& file, bool is_indexed);

 private:
  absl::Status AddShards(const std::string& path);
  // Tensor `index` of the last file, which begins there in the whole one.
  absl::Status AddShard(size_t index, const Shape& begin);
  // That its shards tile it.
  absl::Status CheckWhole(size_t index) const;

  Checkpoint& checkpoint_;
  const CheckpointOptions& options_;
  std::map<std::string, size_t> places_;  // of tensors in shards, among the checkpoint's
  std::set<std::string> broken_;          // excluded ones that do not fit
};

}  // namespace refit

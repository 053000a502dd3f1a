// Fills a trainer's shards in memory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/native/shard_source.h"
#include "refit/buffer.h"

namespace refit {

// One buffer for each shard; null for shards that are not published, which would only take memory.
using ShardValues = std::vector<std::shared_ptr<Buffer>>;

// INVALID_ARGUMENT for a bad regex; RESOURCE_EXHAUSTED if memory is exhausted.
absl::StatusOr<ShardValues> MakeShardValues(const ShardSource& source, const std::string& exclude_key_regex);

}  // namespace refit

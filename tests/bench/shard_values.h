// A trainer's shards in memory, as a real one has them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/native/shard_source.h"
#include "refit/buffer.h"

namespace refit {

// One a shard; null for what is not published, which would only take memory.
using ShardValues = std::vector<std::shared_ptr<Buffer>>;

// INVALID_ARGUMENT for a bad regex; RESOURCE_EXHAUSTED without memory.
absl::StatusOr<ShardValues> MakeShardValues(const ShardSource& source, const std::string& exclude_key_regex);

}  // namespace refit

// Shards that Python lends to a push.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/python/bindings/tensor.h"
#include "common/net/status.h"
#include "refit/box.h"
#include "refit/memory_probe.h"

namespace refit::python {

// Indices of shards, each with all its bytes.
using LentShards = std::vector<std::pair<size_t, Lent>>;

// INVALID_ARGUMENT, naming the shard, for bytes that cannot be read.
inline absl::Status CheckReadable(absl::Span<const std::byte> bytes, const TensorPart& shard, MemoryProbe& probe) {
  const absl::Status status = probe.CheckReadable(bytes);
  return status.ok() ? status : Annotate(status, absl::StrCat("tensor ", shard.ToString()));
}

}  // namespace refit::python

// Options for storing versions.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "refit/sizes.h"

namespace refit {

// 8 GiB, or half of the memory that this process may use (RAM, control groups), whichever is less.
uint64_t DefaultMemoryBudget();

struct StoreOptions {
  // Memory for the tensors of all versions together, in bytes. 0: DefaultMemoryBudget.
  uint64_t memory_budget_bytes = 0;
  // How many committed versions of each model are kept. Older ones are retired, even sooner if the budget needs their
  // memory. 0: none are kept; versions are streamed, and may be larger than the memory.
  uint32_t retain_versions = 2;
  // For a streamed version: how many workers must have a tensor before its memory is freed. At least 1.
  uint32_t stream_to = 1;
  uint64_t chunk_bytes = kDefaultChunkBytes;
  // Whether trainers and workers on this host may exchange bytes with the service through shared memory.
  bool shared_memory = true;
  // Called once if tensors can no longer use shared memory because descriptors or mappings have run out. The status
  // names the limit and its setting. Workers on this host then get such tensors over the connection.
  std::function<void(const absl::Status&)> on_unshared;
  // After a commit, a thread allocates memory for another version of the same kind, if the budget has room. Not for
  // streamed versions.
  bool prefault = false;
  uint32_t max_models = 64;
  // Open versions of all models together.
  uint32_t max_open_versions = 64;
  // Retired and aborted versions that are still listed for each model.
  uint32_t remembered_versions = 32;
};

}  // namespace refit

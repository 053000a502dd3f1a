// What a service keeps of the versions that trainers push.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "refit/sizes.h"

namespace refit {

// 8 GiB, or half of what this process may use if that is less (see common/limits/host_limits.h).
uint64_t DefaultMemoryBudget();

struct StoreOptions {
  // Memory for the tensors of all versions together. Bytes. 0: as DefaultMemoryBudget says.
  uint64_t memory_budget_bytes = 0;
  // Committed versions that each model keeps. Older ones are retired, earlier still if the budget needs it. 0: none;
  // versions are streamed, and may be larger than the memory.
  uint32_t retain_versions = 2;
  // Of a streamed version: how many workers must have a tensor before its memory is given up; at least 1.
  uint32_t stream_to = 1;
  uint64_t chunk_bytes = kDefaultChunkBytes;
  // Trainers and workers on this host may exchange bytes with the service through memory.
  bool shared_memory = true;
  // Told once, when tensors' memory can be shared no longer, since descriptors or mappings ran out; with what was hit,
  // and its setting. Workers on this host get over the connection what is not shared.
  std::function<void(const absl::Status&)> on_unshared;
  // Once a version is committed, memory for one more of its kind is had from the system, if the budget has room, on a
  // thread of its own. Not for streamed versions.
  bool prefault = false;
  uint32_t max_models = 64;
  // Versions that are pushed at a time, of all models.
  uint32_t max_open_versions = 64;
  // Retired and aborted versions that each model still lists.
  uint32_t remembered_versions = 32;
};

}  // namespace refit

// What pulls work with, and what they share with one another.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "common/tensor/buffer.h"
#include "server/access/admission.h"
#include "server/fleet/worker_registry.h"
#include "server/process/end_table.h"
#include "server/pull/part_table.h"
#include "server/store/version_store.h"

namespace refit {

// Memory for workers to try whether they can map this service's. Null if none can be shared.
std::shared_ptr<const Buffer> MakeSharedSample();

// Members are thread-safe or immutable, and outlive every pull.
struct PullContext {
  Admission& admission;
  VersionStore& store;
  WorkerRegistry& workers;
  const std::shared_ptr<const Buffer> shared_sample;  // null if this service shares no memory
  PartTable parts;
  EndTable leases;   // of memory that workers have mapped
  EndTable watches;  // that would never end by themselves
  std::atomic<uint32_t> open{0};
};

}  // namespace refit

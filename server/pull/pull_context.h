// The objects that all pulls share.
#pragma once

#include <grpcpp/server_context.h>

#include <atomic>
#include <cstdint>
#include <optional>

#include "server/access/admission.h"
#include "server/descriptors/descriptor_table.h"
#include "server/fleet/worker_registry.h"
#include "server/process/end_table.h"
#include "server/pull/delta_table.h"
#include "server/pull/lent_segments.h"
#include "server/pull/part_table.h"
#include "server/store/version_store.h"

namespace refit {

// Memory with which workers test whether they can map this service's memory. Nullopt if no memory can be shared.
std::optional<LentSegment> MakeSharedSample(DescriptorTable& descriptors);

// The sender of a request about a model's versions: the name that the worker gave itself, or its address.
template <typename Request>
WorkerId WorkerOf(const Request& request, const grpc::CallbackServerContext& context) {
  return {request.model(), request.worker().empty() ? context.peer() : Printable(request.worker()), request.life()};
}

// Members are thread-safe or immutable, and outlive every pull.
struct PullContext {
  Admission& admission;
  VersionStore& store;
  WorkerRegistry& workers;
  DescriptorTable& descriptors;
  const std::optional<LentSegment> shared_sample;  // nullopt if this service shares no memory
  PartTable parts;
  DeltaTable deltas;
  EndTable leases;   // for memory that workers have mapped
  EndTable watches;  // they have no end of their own
  std::atomic<uint32_t> open{0};
};

}  // namespace refit

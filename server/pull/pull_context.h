// What pulls work with, and what they share with one another.
#pragma once

#include <grpcpp/server_context.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "refit/buffer.h"
#include "server/access/admission.h"
#include "server/fleet/worker_registry.h"
#include "server/process/end_table.h"
#include "server/pull/part_table.h"
#include "server/store/version_store.h"

namespace refit {

// Memory for workers to try whether they can map this service's. Null if none can be shared.
std::shared_ptr<const Buffer> MakeSharedSample();

// Who a request for a model's versions comes from: the name that the worker gave itself, or its address.
template <typename Request>
WorkerId WorkerOf(const Request& request, const grpc::CallbackServerContext& context) {
  return {request.model(), request.worker().empty() ? context.peer() : Printable(request.worker()), request.life()};
}

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

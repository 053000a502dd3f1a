// The objects that all pushes share.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/tensor/buffer_pool.h"
#include "server/access/admission.h"
#include "server/descriptors/descriptor_table.h"
#include "server/fleet/worker_registry.h"
#include "server/process/end_table.h"
#include "server/process/work_queue.h"
#include "server/store/version_store.h"

namespace refit {

// Members are thread-safe, and outlive every push.
struct PushContext {
  Admission& admission;
  VersionStore& store;
  WorkerRegistry& workers;
  WorkQueue& convert;
  DescriptorTable& descriptors;
  BufferPool scratch;          // blocks for a chunk, about one for each converting thread
  const std::string upstream;  // the address of the service above a relay; empty: this is a root
  EndTable waits{};            // of trainers, for their workers
  std::atomic<uint32_t> open{0};
};

// FAILED_PRECONDITION, naming the service above, if this is a relay: its versions are those of the root.
inline absl::Status CheckIsRoot(const PushContext& context) {
  if (context.upstream.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("this service is a relay of ", context.upstream,
                                                    ", whose versions it serves; push, abort and release there"));
}

}  // namespace refit

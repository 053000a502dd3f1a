// Pushes a version from within the service's process.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "refit/limits.h"
#include "refit/publish_options.h"
#include "refit/tensor_spec.h"
#include "refit/version_push.h"
#include "server/process/work_queue.h"
#include "server/store/version_store.h"

namespace refit {

// The calling thread converts the bytes; `helpers` help with large tensors. Store and helpers must outlive the push.
// INVALID_ARGUMENT for more than one rank; otherwise errors as VersionBuilder::Open.
absl::StatusOr<std::unique_ptr<VersionPush>> OpenLocalPush(VersionStore& store, WorkQueue& helpers,
                                                           const PublishOptions& options,
                                                           std::vector<TensorSpec> native, const Limits& limits);

}  // namespace refit

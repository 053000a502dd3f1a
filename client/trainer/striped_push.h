// A version that is pushed over several connections.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "client/calls/connections.h"
#include "client/calls/stream_trial.h"
#include "client/trainer/wire_push.h"
#include "refit/box.h"
#include "refit/publish_options.h"
#include "refit/version_push.h"

namespace refit {

// Opens a version of whole tensors over so many connections. Each is a rank of a sharded push, with its part of the
// bytes: so all of them commit, or none does. `trial`, unless it is null, hears how fast it was.
absl::StatusOr<std::unique_ptr<VersionPush>> OpenStripedPush(const ServiceConnection& service,
                                                             const std::shared_ptr<Connections>& connections,
                                                             const PublishOptions& options,
                                                             std::vector<TensorPart> tensors, size_t streams,
                                                             std::shared_ptr<StreamTrial> trial);

}  // namespace refit

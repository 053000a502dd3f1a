// Runs a pull over one connection or several.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "client/worker/subscriber_connection.h"
#include "refit/pull.h"

namespace refit {

// As PullOptions::streams says, where the sink and the service allow it. Errors as Subscriber::Pull. `options` and
// `sink` must outlive it.
absl::StatusOr<PullResult> RunPull(const std::shared_ptr<SubscriberConnection>& connection, const PullOptions& options,
                                   TensorSink& sink);

}  // namespace refit

// Publishes at::Tensors in process, for a trainer that embeds the service. No network is used.
//
//   auto server = refit::RefitServer::Start(options);
//   auto version = refit::PublishStateDict(**server, publish_options, model_tensors);
#pragma once

#include "absl/status/statusor.h"
#include "refit/server.h"
#include "refit/torch/push.h"

namespace refit {

// Opens a version of these native tensors, publishes them in order, and commits. On an error nothing is published.
// Errors as RefitServer::OpenVersion, PushTensor and VersionPush::Commit. Any thread may call it.
absl::StatusOr<VersionSummary> PublishStateDict(RefitServer& server, const PublishOptions& options,
                                                const NamedTensors& tensors);

}  // namespace refit

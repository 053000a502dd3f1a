// A trainer that embeds the service publishes at::Tensors in process, without a network hop.
//
//   auto server = refit::RefitServer::Start(options);
//   auto version = refit::PublishStateDict(**server, build_options, model_tensors);
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "refit/server.h"

namespace refit {

// Publishes the native tensor of this name: dtype and shape as declared to OpenVersion (INVALID_ARGUMENT otherwise).
// Any device and any strides; what is not contiguous CPU memory is copied to it first. INVALID_ARGUMENT also for a
// tensor whose memory is not there; see CheckMemory. Read when it returns.
absl::Status PublishTensor(VersionBuilder& builder, const std::string& name, const at::Tensor& tensor);

// Opens a version of these native tensors, publishes them in order, commits. On an error nothing is published.
absl::StatusOr<v1::VersionSummary> PublishStateDict(RefitServer& server, const BuildOptions& options,
                                                    const std::vector<std::pair<std::string, at::Tensor>>& tensors);

}  // namespace refit

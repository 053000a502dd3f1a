#include "refit/torch/server.h"

#include <memory>
#include <utility>

namespace refit {

absl::StatusOr<VersionSummary> PublishStateDict(RefitServer& server, const PublishOptions& options,
                                                const NamedTensors& tensors) {
  absl::StatusOr<std::vector<TensorSpec>> native = SpecsOf(tensors);
  if (!native.ok()) return native.status();
  const absl::StatusOr<std::unique_ptr<VersionPush>> push = server.OpenVersion(options, *std::move(native));
  if (!push.ok()) return push.status();
  return PushStateDict(**push, tensors);
}

}  // namespace refit

#include "refit/torch/client.h"

#include <memory>
#include <utility>

namespace refit {

absl::StatusOr<VersionSummary> PublishStateDict(Publisher& publisher, const PublishOptions& options,
                                                const NamedTensors& tensors) {
  absl::StatusOr<std::vector<TensorSpec>> native = SpecsOf(tensors);
  if (!native.ok()) return native.status();
  const absl::StatusOr<std::unique_ptr<VersionPush>> push = publisher.Open(options, *std::move(native));
  if (!push.ok()) return push.status();
  return PushStateDict(**push, tensors);
}

absl::StatusOr<PulledTensors> PullTensors(Subscriber& subscriber, const PullOptions& options) {
  absl::StatusOr<PulledVersion> version = subscriber.Pull(options);
  if (!version.ok()) return version.status();
  PulledTensors pulled;
  pulled.result = std::move(version->result);
  pulled.tensors.reserve(version->tensors.size());
  for (PulledTensor& tensor : version->tensors) {
    absl::StatusOr<TypedTensor> typed = TensorOnBytes(tensor.part.spec(), tensor.data->span(), tensor.data);
    if (!typed.ok()) return typed.status();
    pulled.tensors.emplace_back(std::move(tensor.part.tensor.name), std::move(typed->data));
  }
  return pulled;
}

}  // namespace refit

#include "refit/pull.h"

namespace refit {

std::shared_ptr<const PullBase> BaseOf(const PulledVersion& version) {
  auto base = std::make_shared<PullBase>();
  base->version = version.result.version.version;
  base->trainer_epoch = version.result.version.trainer_epoch;
  base->digest = version.result.selection_digest;
  base->tensors.reserve(version.tensors.size());
  for (const PulledTensor& tensor : version.tensors) {
    base->tensors.push_back(
        {tensor.part, tensor.data != nullptr ? tensor.data->span() : absl::Span<const std::byte>(), tensor.data});
  }
  return base;
}

}  // namespace refit

#include "common/safetensors/safetensors.h"

namespace refit {

absl::StatusOr<std::shared_ptr<const Checkpoint>> Checkpoint::Open(const std::string&) {
  return absl::UnimplementedError("reading checkpoints");
}
absl::Span<const std::byte> Checkpoint::data(size_t index) const {
  return files_[places_[index].first]->data(places_[index].second);
}

}  // namespace refit

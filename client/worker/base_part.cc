#include "client/worker/base_part.h"

#include <utility>

#include "common/wire/digest.h"

namespace refit {

BaseParts::BaseParts(std::shared_ptr<const PullBase> base, uint64_t chunk_bytes)
    : base_(std::move(base)), chunk_bytes_(chunk_bytes) {
  if (base_ == nullptr) return;
  for (size_t i = 0; i < base_->tensors.size(); ++i) places_.emplace(base_->tensors[i].part.tensor.name, i);
}

std::shared_ptr<const PullBase> BaseParts::Of(const std::vector<TensorPart>& parts) const {
  if (base_ == nullptr) return nullptr;
  auto part_of_base = std::make_shared<PullBase>();
  part_of_base->version = base_->version;
  part_of_base->trainer_epoch = base_->trainer_epoch;
  ManifestDigester digester;
  for (const TensorPart& part : parts) {
    const auto place = places_.find(part.tensor.name);
    if (place == places_.end() || !(base_->tensors[place->second].part == part)) return nullptr;
    const PullBase::Tensor& tensor = base_->tensors[place->second];
    digester.Add(part, DigestTensor(tensor.bytes, chunk_bytes_));
    part_of_base->tensors.push_back(tensor);
  }
  part_of_base->digest = digester.Finish();
  return part_of_base;
}

}  // namespace refit

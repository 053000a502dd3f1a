#include "client/worker/base_in_use.h"

#include <utility>

namespace refit {

void BaseInUse::Remember(const StagedVersion& staged) {
  remembered_ = {};
  Held held{{staged.version.version, staged.version.trainer_epoch, staged.selection_digest, {}}, {}, {}};
  held.base.tensors.reserve(staged.tensors.size());
  held.owners.reserve(staged.tensors.size());
  const bool keep = keep_ && staged.traffic.mapped_bytes == 0;  // a mapped version would keep the service's memory
  for (const StagedVersion::Tensor& tensor : staged.tensors) {
    if (tensor.owner == nullptr && tensor.part.ByteSize() > 0) return;
    held.base.tensors.push_back({tensor.part, tensor.bytes, nullptr});
    held.owners.push_back(tensor.owner);
    if (keep) held.kept.push_back(tensor.owner);
  }
  remembered_ = std::move(held);
}

void BaseInUse::Use() { in_use_ = std::exchange(remembered_, {}); }

std::shared_ptr<const PullBase> BaseInUse::Get() const {
  if (in_use_.base.version == 0) return nullptr;
  auto base = std::make_shared<PullBase>(in_use_.base);
  for (size_t i = 0; i < base->tensors.size(); ++i) {
    PullBase::Tensor& tensor = base->tensors[i];
    tensor.owner = in_use_.owners[i].lock();
    if (tensor.owner == nullptr && !tensor.bytes.empty()) return nullptr;
  }
  return base;
}

}  // namespace refit

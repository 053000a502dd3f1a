#include "client/worker/base_in_use.h"

#include <utility>

namespace refit {

void BaseInUse::Remember(const StagedVersion& staged) {
  remembered_ = {};
  Held held{staged.version.version, staged.version.trainer_epoch, staged.selection_digest, {}, {}};
  held.tensors.reserve(staged.tensors.size());
  const bool keep = keep_ && staged.traffic.mapped_bytes == 0;  // a mapped version would keep the service's memory
  for (const StagedVersion::Tensor& tensor : staged.tensors) {
    if (tensor.owner == nullptr && tensor.part.ByteSize() > 0) return;
    held.tensors.push_back({tensor.part, tensor.bytes, tensor.owner});
    if (keep) held.kept.push_back(tensor.owner);
  }
  remembered_ = std::move(held);
}

void BaseInUse::Use() { in_use_ = std::exchange(remembered_, {}); }

std::shared_ptr<const PullBase> BaseInUse::Get() const {
  if (in_use_.version == 0) return nullptr;
  auto base = std::make_shared<PullBase>();
  base->version = in_use_.version;
  base->trainer_epoch = in_use_.trainer_epoch;
  base->digest = in_use_.digest;
  base->tensors.reserve(in_use_.tensors.size());
  for (const Tensor& tensor : in_use_.tensors) {
    std::shared_ptr<Buffer> owner = tensor.owner.lock();
    if (owner == nullptr && !tensor.bytes.empty()) return nullptr;
    base->tensors.push_back({tensor.part, tensor.bytes, std::move(owner)});
  }
  return base;
}

}  // namespace refit

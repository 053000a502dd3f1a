#include "client/worker/delta_receiver.h"

#include "absl/strings/str_cat.h"
#include "common/wire/digest.h"
#include "refit/memory_probe.h"

namespace refit {

DeltaReceiver::DeltaReceiver(const PullBase& base) {
  tensors_.reserve(base.tensors.size());
  for (const PullBase::Tensor& tensor : base.tensors) tensors_.emplace(tensor.part.tensor.name, &tensor);
}

absl::StatusOr<absl::Span<const std::byte>> DeltaReceiver::BytesOf(const TensorPart& part) const {
  const auto found = tensors_.find(part.tensor.name);
  if (found != tensors_.end() && found->second->part == part && found->second->bytes.size() == part.ByteSize()) {
    return found->second->bytes;
  }
  return absl::FailedPreconditionError("the base has no such tensor");
}

absl::StatusOr<DeltaReceiver::Applied> DeltaReceiver::Apply(const TensorPart& part, uint64_t offset,
                                                            absl::Span<const std::byte> payload,
                                                            absl::Span<std::byte> result) {
  const absl::StatusOr<absl::Span<const std::byte>> tensor = BytesOf(part);
  if (!tensor.ok()) return tensor.status();
  const absl::Span<const std::byte> base = tensor->subspan(offset, result.size());
  if (absl::Status status = MemoryProbe().CheckReadable(base); !status.ok()) return status;
  if (payload.empty()) return Applied{CopyAndDigest(base, result.data()), 0};
  absl::Status status = decoder_.Read(payload, result.size(), ElementSize(part.tensor.dtype));
  if (status.ok()) status = decoder_.Apply(base, result);
  if (!status.ok()) return status;
  return Applied{DigestBytes(result), decoder_.changed()};
}

}  // namespace refit

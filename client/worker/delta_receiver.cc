#include "client/worker/delta_receiver.h"

#include "common/tensor/kernels.h"
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

absl::StatusOr<uint64_t> DeltaReceiver::Apply(const TensorPart& part, const PulledChunk& chunk, std::byte* result,
                                              TensorDigester& digester) {
  const absl::StatusOr<absl::Span<const std::byte>> tensor = BytesOf(part);
  if (!tensor.ok()) return tensor.status();
  const absl::Span<const std::byte> base = tensor->subspan(chunk.offset, chunk.bytes);
  absl::Status status = MemoryProbe().CheckReadable(base);
  if (status.ok()) status = delta_.Read(chunk.payload, base.size(), ElementSize(part.tensor.dtype));
  if (!status.ok()) return status;
  if (result == nullptr) {
    status = delta_.Digest(Direction::kForward, base, digester);
  } else {
    const bool past_cache = tensor->size() >= kPastCacheBytes;
    status = delta_.DigestAndWrite(base, {result, base.size()}, past_cache, digester);
  }
  if (!status.ok()) return status;
  return delta_.changed();
}

}  // namespace refit

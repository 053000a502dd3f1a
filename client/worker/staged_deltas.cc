#include "client/worker/staged_deltas.h"

#include <algorithm>

#include "common/wire/digest.h"

namespace refit {

void StagedDeltas::Take(const PulledChunk& chunk) {
  std::vector<Chunk>& chunks = tensors_.back().chunks;
  if (chunk.offset == 0) {
    for (const Chunk& before : chunks) bytes_ -= before.payload.size();
    chunks.clear();
  }
  if (chunk.payload.empty()) return;  // nothing has changed
  chunks.push_back({chunk.is_delta, chunk.offset, chunk.bytes, {chunk.payload.begin(), chunk.payload.end()}});
  bytes_ += chunk.payload.size();
}

absl::StatusOr<uint64_t> StagedDeltas::Preview(uint64_t block_bytes) {
  ManifestDigester manifest;
  for (const Tensor& tensor : tensors_) {
    const absl::StatusOr<uint64_t> digest = Preview(tensor, block_bytes);
    if (!digest.ok()) return digest.status();
    manifest.Add(tensor.part, *digest);
  }
  return manifest.Finish();
}

absl::StatusOr<uint64_t> StagedDeltas::Preview(const Tensor& tensor, uint64_t block_bytes) {
  TensorDigester digester(block_bytes);
  uint64_t at = 0;
  for (const Chunk& chunk : tensor.chunks) {
    digester.Update(tensor.memory.subspan(at, chunk.offset - at));
    at = chunk.offset + chunk.bytes;
    if (!chunk.is_delta) {
      digester.Update(chunk.payload);
      continue;
    }
    absl::Status status = delta_.Read(chunk.payload, chunk.bytes, ElementSize(tensor.part.tensor.dtype));
    if (status.ok()) status = delta_.Digest(direction_, tensor.memory.subspan(chunk.offset, chunk.bytes), digester);
    if (!status.ok()) return status;
  }
  digester.Update(tensor.memory.subspan(at));
  return digester.Finish();
}

absl::Status StagedDeltas::Apply() {
  for (Tensor& tensor : tensors_) {
    for (Chunk& chunk : tensor.chunks) {
      if (absl::Status status = Apply(tensor, chunk); !status.ok()) return status;
    }
  }
  direction_ = direction_ == Direction::kForward ? Direction::kBack : Direction::kForward;
  return absl::OkStatus();
}

absl::Status StagedDeltas::Apply(const Tensor& tensor, Chunk& chunk) {
  const absl::Span<std::byte> range = tensor.memory.subspan(chunk.offset, chunk.bytes);
  if (!chunk.is_delta) {
    std::swap_ranges(range.begin(), range.end(), chunk.payload.begin());
    return absl::OkStatus();
  }
  absl::Status status = delta_.Read(chunk.payload, chunk.bytes, ElementSize(tensor.part.tensor.dtype));
  return status.ok() ? delta_.Change(direction_, range) : status;
}

}  // namespace refit

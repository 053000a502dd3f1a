#include "server/store/tensor_table.h"

#include <algorithm>
#include <utility>

#include "common/wire/digest.h"

namespace refit {

absl::Span<const std::byte> ChunkBytes(const TensorSpec& tensor, const Buffer& data, uint64_t chunk,
                                       uint64_t chunk_bytes) {
  return absl::MakeConstSpan(data.data(), tensor.ByteSize()).subspan(chunk * chunk_bytes, chunk_bytes);
}

TensorTable::TensorTable(const VersionPlan& plan, uint64_t chunk_bytes)
    : plan_(plan), chunk_bytes_(chunk_bytes), incomplete_(plan.outputs.size()) {
  tensors_.reserve(plan_.outputs.size());
  for (size_t i = 0; i < plan_.outputs.size(); ++i) {
    bytes_ += spec(i).ByteSize();
    tensors_.push_back({nullptr, 0, ChunkProgress(spec(i).ByteSize(), chunk_bytes_)});
    tensors_.back().chunk_digests.resize(chunk_count(i));
  }
}

uint64_t TensorTable::chunk_count(size_t tensor) const { return ChunkCount(spec(tensor).ByteSize(), chunk_bytes_); }

uint64_t TensorTable::held_bytes() const {
  uint64_t bytes = 0;
  for (const Tensor& tensor : tensors_) bytes += tensor.data == nullptr ? 0 : tensor.data->size();
  return bytes;
}

void TensorTable::DropAll(Dropped& dropped) {
  for (Tensor& tensor : tensors_) dropped.push_back(std::move(tensor.data));
}

ChunkProgress::Chunks TensorTable::Take(size_t tensor, const ChunkCounts& written) {
  ChunkProgress::Chunks whole = tensors_[tensor].progress.Take(written);
  if (spec(tensor).ByteSize() == 0) whole = {0};
  return whole;
}

void TensorTable::SetReady(size_t tensor, uint64_t chunk, uint64_t digest) {
  Tensor& t = tensors_[tensor];
  t.chunk_digests[chunk] = digest;
  ready_bytes_ += std::min(chunk_bytes_, spec(tensor).ByteSize() - chunk * chunk_bytes_);
  if (++t.ready_chunks < t.chunk_digests.size()) return;
  absl::InlinedVector<uint64_t, 1> blocks;
  if (spec(tensor).ByteSize() != 0) {
    for (const std::optional<uint64_t>& block : t.chunk_digests) blocks.push_back(*block);
  }
  t.digest = TensorDigest(blocks);
  --incomplete_;
}

bool TensorTable::AreReady(size_t tensor, uint64_t first_chunk, uint64_t end_chunk) const {
  const Tensor& t = tensors_[tensor];
  if (t.digest.has_value()) return true;
  for (uint64_t chunk = first_chunk; chunk < end_chunk; ++chunk) {
    if (!t.chunk_digests[chunk].has_value()) return false;
  }
  return true;
}

uint64_t TensorTable::ManifestDigest() const {
  ManifestDigester digester;
  for (size_t i = 0; i < size(); ++i) digester.Add(spec(i), *tensors_[i].digest);
  return digester.Finish();
}

}  // namespace refit

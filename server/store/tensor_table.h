// The tensors of a version: their memory, ready chunks, and digests.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "common/adapters/plan.h"
#include "refit/buffer.h"
#include "server/store/chunk_progress.h"

namespace refit {

// The bytes of a chunk of a tensor that is stored in `data`.
absl::Span<const std::byte> ChunkBytes(const TensorSpec& tensor, const Buffer& data, uint64_t chunk,
                                       uint64_t chunk_bytes);

// A chunk is ready when all its bytes are written, final and digested. Not thread-safe.
class TensorTable {
 public:
  // At first nothing is ready, and no tensor has memory. `plan` must outlive it.
  TensorTable(const VersionPlan& plan, uint64_t chunk_bytes);

  size_t size() const { return tensors_.size(); }
  const TensorSpec& spec(size_t tensor) const { return plan_.outputs[tensor].planned.hf; }
  uint64_t chunk_count(size_t tensor) const;
  // Sum of all tensors.
  uint64_t bytes() const { return bytes_; }

  // Null until the first byte arrives, and after the data were dropped.
  const std::shared_ptr<Buffer>& data(size_t tensor) const { return tensors_[tensor].data; }
  void SetData(size_t tensor, std::shared_ptr<Buffer> data) { tensors_[tensor].data = std::move(data); }
  // Sum of the tensors that have memory.
  uint64_t held_bytes() const;
  // The caller frees dropped buffers once it holds no lock.
  using Dropped = std::vector<std::shared_ptr<Buffer>>;
  void Drop(size_t tensor, Dropped& dropped) { dropped.push_back(std::move(tensors_[tensor].data)); }
  void DropAll(Dropped& dropped);

  // Records bytes that were written and are final. Returns the chunks that are now complete, to be digested and set
  // ready.
  ChunkProgress::Chunks Take(size_t tensor, const ChunkCounts& written);
  void SetReady(size_t tensor, uint64_t chunk, uint64_t digest);
  bool AreReady(size_t tensor, uint64_t first_chunk, uint64_t end_chunk) const;
  uint64_t ready_chunks(size_t tensor) const { return tensors_[tensor].ready_chunks; }
  // nullopt until the chunk is ready.
  std::optional<uint64_t> chunk_digest(size_t tensor, uint64_t chunk) const {
    return tensors_[tensor].chunk_digests[chunk];
  }
  // nullopt until all chunks are ready.
  std::optional<uint64_t> digest(size_t tensor) const { return tensors_[tensor].digest; }
  // Bytes of the ready chunks.
  uint64_t ready_bytes() const { return ready_bytes_; }
  // Number of tensors with chunks that are not ready.
  size_t incomplete() const { return incomplete_; }
  // Requires incomplete() == 0.
  uint64_t ManifestDigest() const;

  // Counts pulls that have passed a tensor: they have it, or do not want it.
  void Pass(size_t tensor) { ++tensors_[tensor].passes; }
  uint32_t passes(size_t tensor) const { return tensors_[tensor].passes; }

 private:
  struct Tensor {
    std::shared_ptr<Buffer> data;
    uint32_t passes = 0;
    ChunkProgress progress;
    uint64_t ready_chunks = 0;
    absl::InlinedVector<std::optional<uint64_t>, 1> chunk_digests;
    std::optional<uint64_t> digest;
  };

  const VersionPlan& plan_;
  const uint64_t chunk_bytes_;
  std::vector<Tensor> tensors_;
  uint64_t bytes_ = 0;
  uint64_t ready_bytes_ = 0;
  size_t incomplete_ = 0;
};

}  // namespace refit

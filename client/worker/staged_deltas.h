// What turns one version into another in the same memory, and back again.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/worker/range_delta.h"
#include "refit/box.h"
#include "refit/pull.h"

namespace refit {

// Holds verified chunks as they came: it takes the size of what has changed, not the model's. For one thread at a time.
class StagedDeltas {
 public:
  // The memory of the next tensor.
  void Place(const TensorPart& part, absl::Span<std::byte> memory) { tensors_.push_back({part, memory, {}}); }
  // Of the last tensor. At offset 0 it begins again.
  void Take(const PulledChunk& chunk);

  // Bytes of all chunks.
  uint64_t bytes() const { return bytes_; }

  // Digest over the tensors, as PullResult::selection_digest, of what Apply would make. Writes nothing.
  absl::StatusOr<uint64_t> Preview(uint64_t block_bytes);

  // Turns the memory into the other version, with a few threads, since an engine waits. The next time it turns it back:
  // so whoever keeps this can go back. An error can leave it in between.
  absl::Status Apply();

 private:
  struct Chunk {
    bool is_delta = false;
    uint64_t offset = 0;
    uint64_t bytes = 0;              // of the range
    std::vector<std::byte> payload;  // changes; or the range itself, as it is in the other version
  };
  struct Tensor {
    TensorPart part;
    absl::Span<std::byte> memory;
    std::vector<Chunk> chunks;  // in order; what they leave out is the same in both versions
  };

  absl::Status Apply(const Tensor& tensor, Chunk& chunk, RangeDelta& delta) const;
  absl::StatusOr<uint64_t> Preview(const Tensor& tensor, uint64_t block_bytes);

  std::vector<Tensor> tensors_;
  uint64_t bytes_ = 0;
  Direction direction_ = Direction::kForward;
  RangeDelta delta_;
};

}  // namespace refit

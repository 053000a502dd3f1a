// Tracks the progress of one shard of a push.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/types/span.h"
#include "common/wire/digest.h"

namespace refit {

// Counts and digests a shard's bytes. Each call takes the next bytes, and returns the tensor digest if they complete
// the shard.
class ShardProgress {
 public:
  // Digests are over blocks of the version's `chunk_bytes`.
  ShardProgress(uint64_t shard_bytes, uint64_t chunk_bytes) : shard_bytes_(shard_bytes), chunk_bytes_(chunk_bytes) {}

  // Bytes so far.
  uint64_t bytes() const { return bytes_; }
  uint64_t missing_bytes() const { return shard_bytes_ - bytes_; }

  // Adds any run of bytes.
  std::optional<uint64_t> Add(absl::Span<const std::byte> bytes) {
    Digester().Update(bytes);
    return Advance(bytes.size());
  }
  // Adds a whole chunk with a known digest.
  std::optional<uint64_t> AddChunk(absl::Span<const std::byte> chunk, uint64_t digest) {
    Digester().UpdateChunk(chunk, digest, chunk.size() == missing_bytes());
    return Advance(chunk.size());
  }
  // Skips bytes that no output needs, without digesting them.
  void Skip(uint64_t bytes) { bytes_ += bytes; }

 private:
  TensorDigester& Digester() {
    if (digester_ == nullptr) digester_ = std::make_unique<TensorDigester>(chunk_bytes_);
    return *digester_;
  }
  std::optional<uint64_t> Advance(uint64_t bytes) {
    bytes_ += bytes;
    if (bytes_ < shard_bytes_) return std::nullopt;
    const uint64_t digest = digester_->Finish();
    digester_.reset();
    return digest;
  }

  uint64_t shard_bytes_;
  uint64_t chunk_bytes_;
  uint64_t bytes_ = 0;
  std::unique_ptr<TensorDigester> digester_;  // exists from the first byte to the last
};

}  // namespace refit

// One tensor of a version, or a box of it, in the form in which pulls send it: split into chunks of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "refit/box.h"
#include "server/pull/packed_chunks.h"
#include "server/store/version.h"

namespace refit {

// If the box is contiguous in its tensor, chunks borrow the tensor's memory. Otherwise they are packed, once for all
// pulls that request the same box at about the same time. Thread-safe.
class VersionPart {
 public:
  // `box` must be valid for the tensor. `packed` must outlive it.
  VersionPart(std::shared_ptr<Version> version, size_t tensor, Box box, PackedChunks& packed);
  ~VersionPart();
  VersionPart(const VersionPart&) = delete;
  VersionPart& operator=(const VersionPart&) = delete;

  const TensorPart& part() const { return part_; }
  const Version& version() const { return *version_; }
  uint64_t chunk_count() const;

  // As Version::GetChunk.
  absl::StatusOr<std::optional<Version::Chunk>> GetChunk(uint64_t chunk) ABSL_LOCKS_EXCLUDED(mutex_);
  // Calls `wake` when GetChunk may return more; see Version::WaitForChunk.
  uint64_t Wait(uint64_t chunk, std::function<void()> wake) const;

  // Set once the chunk was returned.
  std::optional<uint64_t> chunk_digest(uint64_t chunk) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Set once the last chunk was returned.
  std::optional<uint64_t> digest() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Range {
    uint64_t begin;
    uint64_t end;
  };
  Range OwnBytes(uint64_t chunk) const;
  // The range of the tensor's bytes that contains the chunk's bytes.
  Range TensorBytes(uint64_t chunk) const;
  absl::StatusOr<std::optional<Version::Chunk>> Get(uint64_t chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::shared_ptr<const Buffer>> Pack(uint64_t chunk, absl::Span<const std::byte> tensor) const;

  const std::shared_ptr<Version> version_;
  const size_t tensor_;
  const TensorPart part_;
  const BoxRuns runs_;
  PackedChunks& packed_;

  // Held while a chunk is packed, so that it is not packed twice.
  mutable absl::Mutex mutex_;
  std::vector<std::optional<uint64_t>> chunk_digests_ ABSL_GUARDED_BY(mutex_);
  std::optional<uint64_t> digest_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit

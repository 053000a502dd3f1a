// One tensor of a version, or a box of it, as pulls send it: cut into chunks of its own.
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

// Where the box stands in one piece in its tensor, chunks borrow the tensor's memory; elsewhere they are packed, once
// for all pulls that ask for the same box at about the same time. Thread-safe.
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
  // Calls `wake` when GetChunk may have more to give; see Version::WaitForChunks.
  uint64_t Wait(uint64_t chunk, std::function<void()> wake) const;

  // Once the last chunk was given.
  std::optional<uint64_t> digest() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Range {
    uint64_t begin;
    uint64_t end;
  };
  Range OwnBytes(uint64_t chunk) const;
  // The bytes of the tensor among which the chunk's lie.
  Range TensorBytes(uint64_t chunk) const;
  absl::StatusOr<std::optional<Version::Chunk>> Get(uint64_t chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::shared_ptr<const Buffer>> Pack(uint64_t chunk, absl::Span<const std::byte> tensor) const;

  const std::shared_ptr<Version> version_;
  const size_t tensor_;
  const TensorPart part_;
  const BoxRuns runs_;
  PackedChunks& packed_;

  // Held while a chunk is packed, so that nobody packs it a second time.
  mutable absl::Mutex mutex_;
  std::vector<std::optional<uint64_t>> chunk_digests_ ABSL_GUARDED_BY(mutex_);
  std::optional<uint64_t> digest_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit

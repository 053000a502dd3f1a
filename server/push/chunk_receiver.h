// The chunks of one push: checked, verified, and written to their place in the version.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/net/byte_buffer.h"
#include "common/net/shared_segment.h"
#include "common/wire/digest.h"
#include "refit/v1/push.pb.h"
#include "server/push/push_context.h"
#include "server/push/version_builder.h"

namespace refit {

// Takes the chunks of one rank's shards, which come in any order of shards and in order within each. Not thread-safe.
class ChunkReceiver {
 public:
  // `context` and `builder` must outlive it. `segment`: the trainer's memory that shared chunks lie in; null if there
  // is none. `label` names the push in messages.
  ChunkReceiver(PushContext& context, VersionBuilder& builder, std::shared_ptr<const MappedSegment> segment,
                std::string label);

  // Each may answer with how much was handled. If lacks_memory() afterwards, the message was not handled, or, of a
  // batch, not all of it: the caller gives it again. Errors: INVALID_ARGUMENT for a chunk that does not fit its shard,
  // DATA_LOSS for wrong digests, and the builder's.
  using Answer = std::optional<v1::PushResponse>;
  // The usual way: the payload lies in `message`.
  absl::StatusOr<Answer> Handle(const DecodedChunk& chunk, const ReceivedMessage& message);
  // A short chunk, or one that generic protobuf code encoded in its own way.
  absl::StatusOr<Answer> Handle(const ChunkView& chunk);
  absl::StatusOr<Answer> HandleBatch(absl::Span<const ChunkView> batch);
  // The payload lies in the trainer's memory, which is mapped.
  absl::StatusOr<Answer> HandleShared(const v1::SharedChunk& shared);

  // The trainer was told which shards other ranks send: of those, chunks may bring the digest alone.
  void AllowDigestsAlone() { digests_alone_ = true; }

  // Payload bytes that the trainer may have under way.
  uint64_t window_bytes() const { return window_bytes_; }

  // Of a streamed version: the last message waits until workers have taken what was pushed before it.
  bool lacks_memory() const { return lacks_memory_since_.has_value(); }
  // Calls `wake` when there may be memory. False, and never calls, if there may be already. See TensorMemory::Wait.
  bool WaitForMemory(std::function<void()> wake) { return context_.store.memory().Wait(releases_, std::move(wake)); }
  // DEADLINE_EXCEEDED if there was none for longer than workers may take.
  absl::Status CheckPatience() const;
  // The service did not run for `time`: workers are not late because of that.
  void Overslept(std::chrono::steady_clock::duration time);

 private:
  using Clock = std::chrono::steady_clock;

  // Checks a chunk, and has it written if there is memory for it.
  absl::StatusOr<Answer> Take(const ChunkHeader& header, uint64_t payload_bytes,
                              absl::FunctionRef<absl::Status()> write);
  absl::Status Check(const ChunkHeader& header, uint64_t payload_bytes) const;
  absl::Status AppendVerified(const ChunkHeader& header, uint64_t got_digest, absl::Span<const std::byte> payload);
  absl::Status CheckTensorDigest(const ChunkHeader& header, absl::Span<const std::byte> payload);
  // A chunk that tells the digest of a shard which another rank sends.
  bool IsDigestAlone(const ChunkHeader& header) const;
  // Tells the trainer, now and then, how much has been handled.
  Answer Acknowledge(uint64_t payload_bytes);

  PushContext& context_;
  VersionBuilder& builder_;
  const std::shared_ptr<const MappedSegment> segment_;
  const std::string label_;
  const uint64_t window_bytes_;
  std::vector<std::optional<TensorDigester>> digesters_;  // of shards under way
  bool digests_alone_ = false;
  uint64_t handled_bytes_ = 0;  // of payload
  uint64_t acknowledged_bytes_ = 0;
  size_t batch_next_ = 0;  // of a batch that waits for memory, the first chunk that was not handled
  uint64_t releases_ = 0;  // of the store's memory, before it was asked last
  std::optional<Clock::time_point> lacks_memory_since_;
};

}  // namespace refit

// Checks and verifies the chunks of one push, and writes them to their place in the version.
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
#include "common/net/received_message.h"
#include "common/net/shared_segment.h"
#include "common/wire/digest.h"
#include "refit/v1/push.pb.h"
#include "server/push/push_context.h"
#include "server/push/version_builder.h"

namespace refit {

// Receives the chunks of one rank's shards, in any order of shards and in order within each. Not thread-safe.
class ChunkReceiver {
 public:
  // `context` and `builder` must outlive it. `segment`: the trainer's memory with the shared chunks; null if there is
  // none. `label` names the push in messages.
  ChunkReceiver(PushContext& context, VersionBuilder& builder, std::shared_ptr<const MappedSegment> segment,
                std::string label);

  // Each may return an acknowledgement for the trainer. If lacks_memory() is true afterwards, the message, or part of a
  // batch, was not handled: the caller must pass it again. Errors: INVALID_ARGUMENT for a chunk that does not fit its
  // shard, DATA_LOSS for wrong digests, and the builder's.
  using Answer = std::optional<v1::PushResponse>;
  // The usual case: `message` contains the payload.
  absl::StatusOr<Answer> Handle(const DecodedChunk& chunk, const ReceivedMessage& message);
  // A short chunk, or one that generic protobuf code encoded in another form.
  absl::StatusOr<Answer> Handle(const ChunkView& chunk);
  absl::StatusOr<Answer> HandleBatch(absl::Span<const ChunkView> batch);
  // The payload is in the trainer's mapped memory.
  absl::StatusOr<Answer> HandleShared(const v1::SharedChunk& shared);

  // Call it when the trainer was told which shards other ranks send. Chunks of those shards may then consist of the
  // digest alone.
  void AllowDigestsAlone() { digests_alone_ = true; }

  // Payload bytes that the trainer may send without acknowledgement.
  uint64_t window_bytes() const { return window_bytes_; }

  // For a streamed version: the last message waits until workers have pulled what was pushed before it.
  bool lacks_memory() const { return lacks_memory_since_.has_value(); }
  // Calls `wake` when there may be memory. Returns false, and never calls it, if there may be memory already. See
  // TensorMemory::Wait.
  bool WaitForMemory(std::function<void()> wake) { return context_.store.memory().Wait(releases_, std::move(wake)); }
  // DEADLINE_EXCEEDED if there was no memory for longer than workers may take.
  absl::Status CheckPatience() const;
  // The service did not run for `time`. Workers do not count as late because of that.
  void Overslept(std::chrono::steady_clock::duration time);

 private:
  using Clock = std::chrono::steady_clock;

  // Checks a chunk, and has it written if there is memory for it.
  absl::StatusOr<Answer> Take(const ChunkHeader& header, uint64_t payload_bytes,
                              absl::FunctionRef<absl::Status()> write);
  absl::Status Check(const ChunkHeader& header, uint64_t payload_bytes) const;
  absl::Status AppendVerified(const ChunkHeader& header, uint64_t got_digest, absl::Span<const std::byte> payload);
  absl::Status CheckTensorDigest(const ChunkHeader& header, absl::Span<const std::byte> payload);
  // Whether the chunk only contains the digest of a shard that another rank sends.
  bool IsDigestAlone(const ChunkHeader& header) const;
  // Returns an acknowledgement now and then, with the bytes handled so far.
  Answer Acknowledge(uint64_t payload_bytes);

  PushContext& context_;
  VersionBuilder& builder_;
  const std::shared_ptr<const MappedSegment> segment_;
  const std::string label_;
  const uint64_t window_bytes_;
  std::vector<std::optional<TensorDigester>> digesters_;  // of shards that are not complete
  bool digests_alone_ = false;
  uint64_t handled_bytes_ = 0;  // payload bytes
  uint64_t acknowledged_bytes_ = 0;
  size_t batch_next_ = 0;  // the first chunk not handled of a batch that waits for memory
  uint64_t releases_ = 0;  // of the store's memory, read before the last request
  std::optional<Clock::time_point> lacks_memory_since_;
};

}  // namespace refit

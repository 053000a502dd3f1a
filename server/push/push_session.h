// What a push stream does, message by message; knows nothing of reactors.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/net/byte_buffer.h"
#include "common/net/shared_segment.h"
#include "common/wire/digest.h"
#include "refit/box.h"
#include "refit/v1/push.pb.h"
#include "server/push/push_context.h"
#include "server/push/version_builder.h"

namespace refit {

// One stream's protocol: open, declare, chunks, commit or abort. Not thread-safe; one message at a time.
class PushSession {
 public:
  PushSession(PushContext& context, std::string peer) : context_(context), peer_(std::move(peer)) {}
  // Aborts the version unless it was committed.
  ~PushSession();

  // Handles a message; the answer, if there is one, is to be sent. A status that is not OK ends the stream, and the
  // version has been aborted unless it was committed before. If lacks_memory() afterwards, the message was not handled,
  // and is to be given again.
  using Answer = std::optional<v1::PushResponse>;
  absl::StatusOr<Answer> Handle(const ReceivedMessage& message);

  // What is to be said because other ranks have gone on: that the version is open, or committed. ABORTED once it is
  // that.
  absl::StatusOr<Answer> Poll();
  // Registers `wake` for when Poll would have something to say; 0 if it has already. Only while is_open().
  uint64_t Wait(std::function<void()> wake);
  bool is_open() const { return builder_ != nullptr && !finished_ && !abandoned_; }

  // The last message waits for workers to take what was pushed before it, of a streamed version.
  bool lacks_memory() const { return lacks_memory_since_.has_value(); }
  // Registers `wake` for when there may be memory; false if there may be already. See TensorMemory::Wait.
  bool WaitForMemory(std::function<void()> wake) { return context_.store.memory().Wait(releases_, std::move(wake)); }

  // The trainer waits for us, not we for it: this rank has said its part, and others are to declare or to commit; or
  // there is no memory.
  bool keeps_trainer_waiting() const { return is_open() && (!opened_ || committing_ || lacks_memory()); }
  bool committing() const { return committing_; }
  v1::PushResponse WaitingMessage() const;
  // The service itself did not run for so long: nobody is to blame for that.
  void Overslept(std::chrono::steady_clock::duration time);
  // DEADLINE_EXCEEDED, saying for whom, if the trainer waits for longer than those may take.
  absl::Status CheckPatience() const;

  // Payload bytes that the trainer may have under way.
  uint64_t window_bytes() const { return window_bytes_; }

  // Committed or aborted as the trainer asked: nothing more may come.
  bool finished() const { return finished_; }

  // The stream ended, was cut, or fell silent: aborts what is open.
  void Abandon(const std::string& reason);

  // "version default/3", or "push" before it is known; for messages.
  std::string Label() const;

 private:
  using Clock = std::chrono::steady_clock;

  absl::Status Explain(const absl::Status& status) const;
  absl::StatusOr<Answer> Dispatch(const ReceivedMessage& message);
  // Checks a chunk, and has it written if there is memory for it.
  absl::StatusOr<Answer> HandleChunk(const ChunkHeader& header, uint64_t payload_bytes,
                                     absl::FunctionRef<absl::Status()> write);
  absl::Status CheckRanksPatience() const;
  absl::StatusOr<Answer> Open(const v1::OpenVersion& open);
  // All goes over the connection if it cannot be mapped.
  void MapSegment(const v1::SharedSegment& announced);
  absl::StatusOr<Answer> Declare(const v1::DeclareTensors& declare);
  absl::Status Commit();
  v1::PushResponse OpenedMessage() const;
  v1::PushResponse CommittedMessage(v1::VersionSummary summary) const;
  absl::StatusOr<Answer> Abort(const v1::AbortPush& abort);
  // A chunk on the fast path: its payload lies in `message`.
  absl::Status WriteChunk(const DecodedChunk& chunk, const ReceivedMessage& message);
  // A short one, or one that generic protobuf code encoded in its own way.
  absl::Status WriteChunk(const ChunkView& chunk);
  // Tells the trainer, now and then, how much has been handled.
  Answer OnHandled(uint64_t payload_bytes);
  absl::StatusOr<Answer> HandleBatch(absl::Span<const ChunkView> batch);
  // A chunk whose payload lies in the trainer's memory.
  absl::StatusOr<Answer> HandleSharedChunk(const v1::SharedChunk& shared);
  absl::Status CheckChunk(const ChunkHeader& header, uint64_t payload_bytes) const;
  absl::Status AppendVerified(const ChunkHeader& header, uint64_t got_digest, absl::Span<const std::byte> payload);
  // A chunk that tells the digest of a shard which another rank sends.
  bool IsDigestAlone(const ChunkHeader& header) const;
  absl::Status CheckTensorDigest(const ChunkHeader& header, absl::Span<const std::byte> payload);

  PushContext& context_;
  const std::string peer_;
  std::optional<PublishOptions> options_;         // after `open`
  std::shared_ptr<const MappedSegment> segment_;  // the trainer's, if it offers one that can be mapped
  std::vector<TensorPart> declared_;              // until the last `declare`
  Clock::time_point declared_at_;
  std::unique_ptr<VersionBuilder> builder_;
  std::vector<std::optional<TensorDigester>> digesters_;  // of shards under way
  uint64_t window_bytes_ = 0;
  uint64_t handled_bytes_ = 0;  // of payload
  uint64_t acknowledged_bytes_ = 0;
  size_t batch_next_ = 0;  // of a batch that waits for memory, the first chunk that was not handled
  uint64_t releases_ = 0;  // of the store's memory, before it was asked last
  std::optional<Clock::time_point> lacks_memory_since_;
  bool opened_ = false;      // the trainer was told so
  bool committing_ = false;  // the trainer has asked for it
  bool finished_ = false;
  bool abandoned_ = false;
};

}  // namespace refit

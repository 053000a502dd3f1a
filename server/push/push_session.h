// What a push stream does, message by message; knows nothing of reactors.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/net/byte_buffer.h"
#include "common/net/shared_segment.h"
#include "refit/box.h"
#include "refit/v1/push.pb.h"
#include "server/push/chunk_receiver.h"
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
  bool lacks_memory() const { return chunks_.has_value() && chunks_->lacks_memory(); }
  // Registers `wake` for when there may be memory; false if there may be already. Only while lacks_memory().
  bool WaitForMemory(std::function<void()> wake) { return chunks_->WaitForMemory(std::move(wake)); }

  // The trainer waits for us, not we for it: this rank has said its part, and others are to declare or to commit; or
  // there is no memory.
  bool keeps_trainer_waiting() const { return is_open() && (!opened_ || committing_ || lacks_memory()); }
  bool committing() const { return committing_; }
  v1::PushResponse WaitingMessage() const;
  // The service itself did not run for so long: nobody is to blame for that.
  void Overslept(std::chrono::steady_clock::duration time);
  // DEADLINE_EXCEEDED, saying for whom, if the trainer waits for longer than those may take.
  absl::Status CheckPatience() const;

  // Payload bytes that the trainer may have under way. Only while lacks_memory().
  uint64_t window_bytes() const { return chunks_->window_bytes(); }

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
  absl::Status CheckTakesChunks() const;
  absl::StatusOr<Answer> HandleBatch(absl::Span<const ChunkView> batch);
  absl::StatusOr<Answer> HandleSharedChunk(const v1::SharedChunk& shared);
  absl::Status CheckRanksPatience() const;
  absl::StatusOr<Answer> Open(const v1::OpenVersion& open);
  // All goes over the connection if it cannot be mapped.
  void MapSegment(const v1::SharedSegment& announced);
  absl::StatusOr<Answer> Declare(const v1::DeclareTensors& declare);
  absl::Status Commit();
  v1::PushResponse OpenedMessage() const;
  v1::PushResponse CommittedMessage(v1::VersionSummary summary) const;
  absl::StatusOr<Answer> Abort(const v1::AbortPush& abort);

  PushContext& context_;
  const std::string peer_;
  std::optional<BuildOptions> options_;           // after `open`
  std::shared_ptr<const MappedSegment> segment_;  // the trainer's, if it offers one that can be mapped
  std::vector<TensorPart> declared_;              // until the last `declare`
  Clock::time_point declared_at_;
  std::unique_ptr<VersionBuilder> builder_;
  std::optional<ChunkReceiver> chunks_;  // once there is a builder
  bool opened_ = false;                  // the trainer was told so
  bool committing_ = false;              // the trainer has asked for it
  bool finished_ = false;
  bool abandoned_ = false;
};

}  // namespace refit

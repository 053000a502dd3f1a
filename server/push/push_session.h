// The protocol of one push, message by message. It does not depend on gRPC's reactors.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/net/received_message.h"
#include "common/net/shared_segment.h"
#include "refit/box.h"
#include "refit/v1/push.pb.h"
#include "server/push/chunk_receiver.h"
#include "server/push/push_context.h"
#include "server/push/version_builder.h"

namespace refit {

// Handles open, declare, chunks, then commit or abort. Not thread-safe: one message at a time.
class PushSession {
 public:
  PushSession(PushContext& context, std::string peer) : context_(context), peer_(std::move(peer)) {}
  // Aborts the version unless it was committed.
  ~PushSession();

  // Handles a message. The caller sends the answer, if there is one. An error ends the stream, and aborts the version
  // unless it was already committed. If lacks_memory() is true afterwards, the message was not handled: the caller must
  // pass it again.
  using Answer = std::optional<v1::PushResponse>;
  absl::StatusOr<Answer> Handle(const ReceivedMessage& message);

  // An answer for the trainer about the progress of other ranks: the version is open, or committed. ABORTED if it was
  // aborted.
  absl::StatusOr<Answer> Poll();
  // Calls `wake` when Poll has an answer. Returns 0, and never calls it, if it has one already. Only while is_open().
  uint64_t Wait(std::function<void()> wake);
  bool is_open() const { return builder_ != nullptr && !finished_ && !abandoned_; }

  // For a streamed version: the last message waits until workers have pulled what was pushed before it.
  bool lacks_memory() const { return chunks_.has_value() && chunks_->lacks_memory(); }
  // Calls `wake` when there may be memory. Returns false, and never calls it, if there may be memory already. Only
  // while lacks_memory().
  bool WaitForMemory(std::function<void()> wake) { return chunks_->WaitForMemory(std::move(wake)); }

  // Whether the trainer waits for the service rather than the service for the trainer: other ranks have not declared or
  // committed yet, or there is no memory.
  bool keeps_trainer_waiting() const { return is_open() && (!opened_ || committing_ || lacks_memory()); }
  bool committing() const { return committing_; }
  v1::PushResponse WaitingMessage() const;
  // The service did not run for `time`. Ranks and workers do not count as late because of that.
  void Overslept(std::chrono::steady_clock::duration time);
  // DEADLINE_EXCEEDED, naming whom the trainer waits for, if they take longer than they may.
  absl::Status CheckPatience() const;

  // Payload bytes that the trainer may send without acknowledgement. Only while lacks_memory().
  uint64_t window_bytes() const { return chunks_->window_bytes(); }

  // Whether the version was committed, or aborted on request of the trainer. No more messages may come.
  bool finished() const { return finished_; }

  // Call it when the stream has ended, was cut, or was silent for too long. Aborts an open version.
  void Abandon(const std::string& reason);

  // For messages: "version default/3", or "push" before the version is known.
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
  // If the trainer's memory cannot be mapped, all bytes are sent over the connection.
  void MapSegment(const v1::SharedSegment& announced);
  absl::StatusOr<Answer> Declare(const v1::DeclareTensors& declare);
  absl::Status Commit();
  v1::PushResponse OpenedMessage() const;
  v1::PushResponse CommittedMessage(v1::VersionSummary summary) const;
  absl::StatusOr<Answer> Abort(const v1::AbortPush& abort);

  PushContext& context_;
  const std::string peer_;
  std::optional<PublishOptions> options_;         // set by `open`
  std::shared_ptr<const MappedSegment> segment_;  // the trainer's, if it offers one that can be mapped
  std::vector<TensorPart> declared_;              // until the last `declare`
  Clock::time_point declared_at_;
  std::unique_ptr<VersionBuilder> builder_;
  std::optional<ChunkReceiver> chunks_;  // set once there is a builder
  bool opened_ = false;                  // whether the trainer was told so
  bool committing_ = false;              // whether the trainer has requested the commit
  bool finished_ = false;
  bool abandoned_ = false;
};

}  // namespace refit

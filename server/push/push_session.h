// The protocol of one push, message by message. Knows nothing of reactors.
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

// Open, declare, chunks, then commit or abort. Not thread-safe: takes one message at a time.
class PushSession {
 public:
  PushSession(PushContext& context, std::string peer) : context_(context), peer_(std::move(peer)) {}
  // Aborts the version unless it was committed.
  ~PushSession();

  // Handles a message. The caller sends the answer, if there is one. An error ends the stream; the version is aborted
  // then, unless it was committed before. If lacks_memory() afterwards, the message was not handled: the caller gives
  // it again.
  using Answer = std::optional<v1::PushResponse>;
  absl::StatusOr<Answer> Handle(const ReceivedMessage& message);

  // What the trainer is to hear because other ranks have gone on: that the version is open, or committed. ABORTED if
  // it was aborted.
  absl::StatusOr<Answer> Poll();
  // Calls `wake` when Poll has something to say. Returns 0, and never calls, if it has already. Only while is_open().
  uint64_t Wait(std::function<void()> wake);
  bool is_open() const { return builder_ != nullptr && !finished_ && !abandoned_; }

  // Of a streamed version: the last message waits until workers have taken what was pushed before it.
  bool lacks_memory() const { return chunks_.has_value() && chunks_->lacks_memory(); }
  // Calls `wake` when there may be memory. False, and never calls, if there may be already. Only while lacks_memory().
  bool WaitForMemory(std::function<void()> wake) { return chunks_->WaitForMemory(std::move(wake)); }

  // The trainer waits for the service, not the service for it: other ranks have not declared or committed yet, or there
  // is no memory.
  bool keeps_trainer_waiting() const { return is_open() && (!opened_ || committing_ || lacks_memory()); }
  bool committing() const { return committing_; }
  v1::PushResponse WaitingMessage() const;
  // The service did not run for `time`: no rank and no worker is late because of that.
  void Overslept(std::chrono::steady_clock::duration time);
  // DEADLINE_EXCEEDED, naming whom the trainer waits for, if they take longer than they may.
  absl::Status CheckPatience() const;

  // Payload bytes that the trainer may have under way. Only while lacks_memory().
  uint64_t window_bytes() const { return chunks_->window_bytes(); }

  // Committed or aborted, as the trainer asked. No more messages may come.
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
  // If the trainer's memory cannot be mapped, all bytes go over the connection.
  void MapSegment(const v1::SharedSegment& announced);
  absl::StatusOr<Answer> Declare(const v1::DeclareTensors& declare);
  absl::Status Commit();
  v1::PushResponse OpenedMessage() const;
  v1::PushResponse CommittedMessage(v1::VersionSummary summary) const;
  absl::StatusOr<Answer> Abort(const v1::AbortPush& abort);

  PushContext& context_;
  const std::string peer_;
  std::optional<PublishOptions> options_;         // after `open`
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

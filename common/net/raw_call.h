// A streaming call on raw messages, with blocking reads and writes that always end.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "refit/fork_guard.h"

namespace refit {

// One call of any streaming kind. One thread may read while another writes; Cancel may come from any thread. The
// destructor cancels a call that has not finished and waits for gRPC to let go of it, a tenth of a second at most: what
// a silent peer holds up goes later, and messages keep their owners until then. In a child of a fork
// FAILED_PRECONDITION, and the parent's call goes on.
class RawCall {
 public:
  // Starts `method`, such as "/refit.v1.PullService/Pull".
  static std::unique_ptr<RawCall> Start(const std::shared_ptr<grpc::Channel>& channel, const std::string& method);
  ~RawCall();

  // Hands a message to gRPC; returns once the one before it was taken (so at most one is in flight here). Non-OK once
  // the call has ended: the reason is what Finish says. DEADLINE_EXCEEDED cancels the call.
  absl::Status Write(grpc::ByteBuffer message, std::chrono::milliseconds timeout);

  // Adds a piece to a message that is sent once it has `bytes`, `wait` after its first piece, or before anything else
  // is written or read. While gRPC has not taken the message before it, it grows, and at `bytes` the caller waits.
  // Pieces of one call are batched alike. Otherwise as Write.
  struct Batching {
    size_t bytes;
    size_t max_piece_bytes;
    std::chrono::milliseconds wait;
    grpc::ByteBuffer (*message)(std::string pieces);
  };
  absl::Status WriteTogether(absl::FunctionRef<void(std::string& pieces)> append, const Batching& batching,
                             std::chrono::milliseconds timeout);

  // No more writes.
  absl::Status WritesDone(std::chrono::milliseconds timeout);

  // The next message; nullopt when the peer sends no more (then Finish says why). The following message is already
  // being read meanwhile. DEADLINE_EXCEEDED, and the call is cancelled, when nothing came for `timeout`.
  absl::StatusOr<std::optional<grpc::ByteBuffer>> Read(std::chrono::milliseconds timeout);

  // The call's final status. DEADLINE_EXCEEDED, and the call is cancelled, if it has none within `timeout`.
  absl::Status Finish(std::chrono::milliseconds timeout);

  void Cancel();

 private:
  class Reactor;
  class Lingering;
  explicit RawCall(OwnedByProcess<Reactor> reactor);
  absl::Status CheckNotForked() const;
  OwnedByProcess<Reactor> reactor_;
};

}  // namespace refit

// A streaming call with raw messages. Its reads and writes block, but always end.
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

// One streaming call of any kind. One thread may read while another writes. Any thread may call Cancel. The destructor
// cancels a call that has not finished, and waits for gRPC to release it, at most a tenth of a second. If a peer does
// not read, gRPC releases the call later, and messages keep their owners until then. In a child of a fork calls return
// FAILED_PRECONDITION, and the parent's call continues.
class RawCall {
 public:
  // Starts `method`, such as "/refit.v1.PullService/Pull".
  static std::unique_ptr<RawCall> Start(const std::shared_ptr<grpc::Channel>& channel, const std::string& method);
  ~RawCall();

  // Passes a message to gRPC. Returns once the previous one was taken, so at most one is in flight here. An error once
  // the call has ended; Finish returns the reason. DEADLINE_EXCEEDED cancels the call.
  absl::Status Write(grpc::ByteBuffer message, std::chrono::milliseconds timeout);

  // Adds a piece to a message. The message is sent once it has `bytes`, or `wait` after its first piece, or before
  // anything else is written or read. It grows while gRPC has not taken the previous message; at `bytes` the caller
  // waits. All pieces of a call must be batched in the same way. Otherwise as Write.
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

  // Reads the next message; nullopt if the peer sends no more (Finish returns the reason). The following message is
  // read ahead. If nothing arrives for `timeout`, cancels the call and returns DEADLINE_EXCEEDED.
  absl::StatusOr<std::optional<grpc::ByteBuffer>> Read(std::chrono::milliseconds timeout);

  // The call's final status. If there is none within `timeout`, cancels the call and returns DEADLINE_EXCEEDED.
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

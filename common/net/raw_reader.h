// A server-streaming call on raw messages, read on the calling thread.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "refit/fork_guard.h"

namespace refit {

// The thread that reads also moves the bytes: no message is handed from one thread to another, which at 2 MiB a message
// costs more than it wins. One thread at a time; Cancel from any. In a child of a fork FAILED_PRECONDITION, and the
// parent's call goes on.
class RawReader {
 public:
  // Starts `method`, such as "/refit.v1.PullService/Pull", with its only request. A call that cannot start ends at
  // once, or after `timeout`; Read and Finish say so.
  static std::unique_ptr<RawReader> Start(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                                          const grpc::ByteBuffer& request, std::chrono::milliseconds timeout);
  // The same in two steps: Cancel may come in between, and while Begin waits for the call to start.
  static std::unique_ptr<RawReader> Prepare(const std::shared_ptr<grpc::Channel>& channel, const std::string& method);
  void Begin(const grpc::ByteBuffer& request, std::chrono::milliseconds timeout);
  // Cancels a call that has not ended, and waits for gRPC to let go of it.
  ~RawReader();
  RawReader(const RawReader&) = delete;
  RawReader& operator=(const RawReader&) = delete;

  // The next message; nullopt when the peer sends no more (then Finish says why). DEADLINE_EXCEEDED, and the call is
  // cancelled, when nothing came for `timeout`.
  absl::StatusOr<std::optional<grpc::ByteBuffer>> Read(std::chrono::milliseconds timeout);

  // The call's final status; messages that nobody has read are dropped. DEADLINE_EXCEEDED, and the call is cancelled,
  // if it has none within `timeout`.
  absl::Status Finish(std::chrono::milliseconds timeout);

  // Whether the call is known to have ended, or has something to read; does not wait. Nobody else looks at a call that
  // is not read: ask now and then.
  bool HasNews();

  void Cancel();

 private:
  class State;
  explicit RawReader(OwnedByProcess<State> state);
  absl::Status CheckNotForked() const;
  OwnedByProcess<State> state_;
};

}  // namespace refit

// A streaming call on raw messages, with blocking reads and writes that always end.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace refit {

// One call of any streaming kind. One thread may read while another writes; Cancel may come from any thread. The
// destructor cancels a call that has not finished and waits for gRPC to let go of it.
class RawCall {
 public:
  // Starts `method`, such as "/refit.v1.PullService/Pull".
  static std::unique_ptr<RawCall> Start(const std::shared_ptr<grpc::Channel>& channel, const std::string& method);
  ~RawCall();

  // Hands a message to gRPC; returns once the one before it was taken (so at most one is in flight here). Non-OK once
  // the call has ended: the reason is what Finish says. DEADLINE_EXCEEDED cancels the call.
  absl::Status Write(grpc::ByteBuffer message, std::chrono::milliseconds timeout);

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
  explicit RawCall(std::unique_ptr<Reactor> reactor);
  std::unique_ptr<Reactor> reactor_;
};

}  // namespace refit

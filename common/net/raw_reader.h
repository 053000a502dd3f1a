// A server-streaming call with raw messages. The calling thread reads and processes them.
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

// The thread that reads also moves the bytes. Messages are not passed from one thread to another: for messages of 2
// MiB, that costs more than it gains. Use it from one thread at a time; any thread may call Cancel. In a child of a
// fork calls return FAILED_PRECONDITION, and the parent's call continues.
class RawReader {
 public:
  // Starts `method`, such as "/refit.v1.PullService/Pull", with its only request. A call that cannot start ends at
  // once, or after `timeout`; Read and Finish return the error.
  static std::unique_ptr<RawReader> Start(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                                          const grpc::ByteBuffer& request, std::chrono::milliseconds timeout);
  // As Start, in two steps. Cancel may be called in between, and while Begin waits for the call to start.
  static std::unique_ptr<RawReader> Prepare(const std::shared_ptr<grpc::Channel>& channel, const std::string& method);
  void Begin(const grpc::ByteBuffer& request, std::chrono::milliseconds timeout);
  // Cancels a call that has not ended, and waits for gRPC to release it.
  ~RawReader();
  RawReader(const RawReader&) = delete;
  RawReader& operator=(const RawReader&) = delete;

  // The next message; nullopt if the peer sends no more (Finish returns the reason). If nothing arrives for `timeout`,
  // cancels the call and returns DEADLINE_EXCEEDED.
  absl::StatusOr<std::optional<grpc::ByteBuffer>> Read(std::chrono::milliseconds timeout);

  // The call's final status. Drops unread messages. If there is no status within `timeout`, cancels the call and
  // returns DEADLINE_EXCEEDED.
  absl::Status Finish(std::chrono::milliseconds timeout);

  // Whether the call has ended, or has a message to read. Does not wait. While no one reads, nothing else processes the
  // call's events, so call it now and then.
  bool HasNews();

  // Waits so long at most until HasNews. Read then returns without waiting.
  bool AwaitNews(std::chrono::milliseconds timeout);

  void Cancel();

 private:
  class State;
  explicit RawReader(OwnedByProcess<State> state);
  absl::Status CheckNotForked() const;
  OwnedByProcess<State> state_;
};

}  // namespace refit

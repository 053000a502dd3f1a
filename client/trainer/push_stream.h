// The stream of one push: sends messages, receives answers, and keeps the error that ended it.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/calls/active_calls.h"
#include "common/net/raw_call.h"
#include "refit/publish_options.h"
#include "refit/v1/push.pb.h"

namespace refit {

// Sends messages and receives answers; it does not know shards. The first error ends the stream, and every later call
// returns it. Not thread-safe. Only the process that made it may destroy it: see OwnedByProcess.
class PushStream {
 public:
  // Begins the call. Cancelling `calls` ends it. `context` begins every error: "push of default/3 to host:port".
  PushStream(const std::shared_ptr<grpc::Channel>& channel, const std::shared_ptr<ActiveCalls>& calls,
             const PublishOptions& options, std::string context);

  const std::string& context() const { return context_; }
  // If not OK, nothing more can be pushed.
  const absl::Status& over() const { return over_; }
  // Marks the push as ended. `how` is the reason why nothing more can be pushed.
  void Close(absl::string_view how);

  // `tensor` is the name of the tensor in the message, for errors. Empty: no tensor.
  absl::Status Send(grpc::ByteBuffer message, absl::string_view tensor = "");
  // Sends a short chunk in a batch with others; see RawCall::WriteTogether.
  absl::Status SendTogether(absl::FunctionRef<void(std::string& entries)> append, absl::string_view tensor);
  // Sends the last message.
  absl::Status SendLast(const v1::PushRequest& request);

  // Receives the next answer, which must be `expected`. Calls on_waiting with the missing ranks meanwhile.
  absl::Status Receive(v1::PushResponse::ResponseCase expected, v1::PushResponse& response);

  // Ends the stream with this error, and returns it with the context before its message.
  absl::Status Fail(const absl::Status& status, absl::string_view tensor = "");

 private:
  absl::Status Read(v1::PushResponse& response);
  absl::Status FailAsServiceSays(absl::string_view tensor = "");

  const std::string context_;
  const std::chrono::milliseconds timeout_;
  const std::function<void(absl::Span<const uint32_t> missing)> on_waiting_;
  const std::chrono::steady_clock::time_point begin_;
  const std::unique_ptr<RawCall> call_;
  const ActiveCalls::Entry entry_;  // ends before the call does
  absl::Status over_;
};

}  // namespace refit

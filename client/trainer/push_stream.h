// The stream of one push: what is written to it, what the service answers, and why it ended.
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

// Messages out and answers in; knows nothing of shards. The first error ends it, and is what every later call gets. Not
// thread-safe. To be destroyed in the process that made it only: see OwnedByProcess.
class PushStream {
 public:
  // Begins the call, which cancelling `calls` ends. `context` begins every error: "push of default/3 to host:port".
  PushStream(const std::shared_ptr<grpc::Channel>& channel, const std::shared_ptr<ActiveCalls>& calls,
             const PublishOptions& options, std::string context);

  const std::string& context() const { return context_; }
  // Not OK: nothing more can be pushed.
  const absl::Status& over() const { return over_; }
  // The push has come to its end: `how` is why nothing more can be pushed.
  void Close(absl::string_view how);

  // `tensor` names the tensor that the message is of, for errors; empty: of none.
  absl::Status Send(grpc::ByteBuffer message, absl::string_view tensor = "");
  // A short chunk, batched with others; see RawCall::WriteTogether.
  absl::Status SendTogether(absl::FunctionRef<void(std::string& entries)> append, absl::string_view tensor);
  // The last message.
  absl::Status SendLast(const v1::PushRequest& request);

  // The next answer, which must be `expected`. Meanwhile on_waiting is told of the ranks that are missing.
  absl::Status Receive(v1::PushResponse::ResponseCase expected, v1::PushResponse& response);

  // Ends it because of this error, which it returns with the context before it.
  absl::Status Fail(const absl::Status& status, absl::string_view tensor = "");

 private:
  absl::Status Read(v1::PushResponse& response);
  absl::Status FailAsServiceSays(absl::string_view tensor = "");

  const std::string context_;
  const std::chrono::milliseconds timeout_;
  const std::function<void(absl::Span<const uint32_t> missing)> on_waiting_;
  const std::chrono::steady_clock::time_point begin_;
  const std::unique_ptr<RawCall> call_;
  const ActiveCalls::Entry entry_;  // of the call: goes before it
  absl::Status over_;
};

}  // namespace refit

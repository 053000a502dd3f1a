#include "client/trainer/push_stream.h"

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/net/byte_buffer.h"
#include "common/net/status.h"
#include "common/wire/chunk_codec.h"
#include "refit/tensor_spec.h"

namespace refit {
namespace {

constexpr char kPushMethod[] = "/refit.v1.PushService/Push";
constexpr RawCall::Batching kShortChunks{kBatchBytes, kMaxBatchBytes - kBatchBytes, std::chrono::milliseconds(2),
                                         &MakeBatchMessage};

// Whether something other than the service ended the stream: its process, a network, or a proxy in between.
bool WasCut(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::StrContains(status.message(), "RST_STREAM") ||
         status.message() == "Stream removed";
}

// Proxies and meshes end streams after a limit of their own, without saying so. The time in the message helps to
// find that.
absl::Status WithTimeToTheCut(const absl::Status& status, std::chrono::steady_clock::duration lasted) {
  if (!WasCut(status)) return status;
  const double seconds = std::chrono::duration<double>(lasted).count();
  return absl::Status(
      status.code(),
      absl::StrCat(
          status.message(), absl::StrFormat(" (the stream was cut after %.1f s", seconds),
          ": the service ended, or the network, or a proxy's limit. A push is one stream: a proxy or mesh must let it "
          "last, be silent while the trainer is, and have any size, as by stream_idle_timeout and "
          "max_stream_duration in Envoy, grpc_read_timeout and client_max_body_size in nginx)"));
}

}  // namespace

PushStream::PushStream(const std::shared_ptr<grpc::Channel>& channel, const std::shared_ptr<ActiveCalls>& calls,
                       const PublishOptions& options, std::string context)
    : context_(std::move(context)),
      timeout_(options.timeout),
      on_waiting_(options.on_waiting),
      begin_(std::chrono::steady_clock::now()),
      call_(RawCall::Start(channel, kPushMethod)),
      entry_(calls, [call = call_.get()] { call->Cancel(); }) {}

void PushStream::Close(absl::string_view how) {
  over_ = absl::FailedPreconditionError(absl::StrCat(context_, ": the version ", how));
}

absl::Status PushStream::Fail(const absl::Status& status, absl::string_view tensor) {
  over_ = Annotate(status, tensor.empty() ? context_ : absl::StrCat(context_, ", tensor ", Printable(tensor)));
  call_->Cancel();
  return over_;
}

// A failed write, or an early end of the stream, does not contain the reason. The call's status does.
absl::Status PushStream::FailAsServiceSays(absl::string_view tensor) {
  absl::Status status = call_->Finish(timeout_);
  if (status.ok()) status = absl::InternalError("the service ended the push before it was committed");
  return Fail(WithTimeToTheCut(status, std::chrono::steady_clock::now() - begin_), tensor);
}

absl::Status PushStream::Send(grpc::ByteBuffer message, absl::string_view tensor) {
  const absl::Status status = call_->Write(std::move(message), timeout_);
  return status.ok() ? status : FailAsServiceSays(tensor);
}

absl::Status PushStream::SendTogether(absl::FunctionRef<void(std::string& entries)> append, absl::string_view tensor) {
  const absl::Status status = call_->WriteTogether(append, kShortChunks, timeout_);
  return status.ok() ? status : FailAsServiceSays(tensor);
}

absl::Status PushStream::SendLast(const v1::PushRequest& request) {
  if (absl::Status status = Send(Serialize(request)); !status.ok()) return status;
  const absl::Status status = call_->WritesDone(timeout_);
  return status.ok() ? status : FailAsServiceSays();
}

absl::Status PushStream::Read(v1::PushResponse& response) {
  const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = call_->Read(timeout_);
  if (!message.ok()) return Fail(message.status());
  if (!message->has_value()) return FailAsServiceSays();
  const absl::Status status = Parse(**message, response);
  return status.ok() ? status : Fail(absl::InternalError(status.message()));
}

// The service decides how long other ranks may keep this one waiting. Each `waiting` message shows that it is alive.
absl::Status PushStream::Receive(v1::PushResponse::ResponseCase expected, v1::PushResponse& response) {
  while (true) {
    if (absl::Status status = Read(response); !status.ok()) return status;
    if (response.response_case() == expected) return absl::OkStatus();
    if (response.has_received()) continue;  // acknowledgements are counted, but not waited for
    if (!response.has_waiting()) break;
    const auto& missing = response.waiting().ranks();
    if (on_waiting_) on_waiting_(absl::MakeConstSpan(missing.data(), missing.size()));
  }
  return Fail(absl::InternalError(absl::StrCat("the service answered with field ", response.response_case(),
                                               " of PushResponse where ", expected, " was expected")));
}

}  // namespace refit

#include "client/publisher.h"

#include <grpcpp/client_context.h>

#include <algorithm>
#include <limits>
#include <unordered_map>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/net/byte_buffer.h"
#include "common/net/messages.h"
#include "common/net/raw_call.h"
#include "common/net/status.h"
#include "common/wire/chunk_codec.h"
#include "common/wire/digest.h"
#include "refit/v1/push.grpc.pb.h"

namespace refit {
namespace {

constexpr char kPushMethod[] = "/refit.v1.PushService/Push";
constexpr std::chrono::seconds kAbortTimeout{60};

// A part of a declaration is sent once it is this large.
constexpr size_t kDeclareBytes = 1 << 20;
// What a message may hold besides its payload.
constexpr uint64_t kMessageOverhead = 1 << 10;
// Chunks are cut at multiples of the largest element.
constexpr uint64_t kElementBytes = 8;

v1::PushRequest OpenRequest(const PublishOptions& options) {
  v1::PushRequest request;
  v1::OpenVersion& open = *request.mutable_open();
  open.set_model(options.model);
  open.set_version(options.version);
  open.set_adapter(options.adapter);
  if (options.dtype.has_value()) open.set_dtype(static_cast<v1::DType>(*options.dtype));
  open.set_exclude_key_regex(options.exclude_key_regex);
  open.set_publisher(options.publisher);
  return request;
}

// The longest chunk that both the version's chunk size and the limits allow; 0 if that is none.
uint64_t ChunkLimit(const v1::VersionOpened& opened) {
  const uint64_t limit =
      std::min({opened.summary().chunk_bytes(), opened.max_chunk_bytes(), kMaxMessageBytes - kMessageOverhead});
  return limit / kElementBytes * kElementBytes;
}

}  // namespace

// The stream of one version. The first error ends it, and is what every later call gets.
struct VersionPush::State {
  struct Progress {
    uint64_t sent = 0;
    std::unique_ptr<TensorDigester> digester;  // from the first chunk to the last
  };

  PublishOptions options;
  std::string context;  // "push of default/3 to 127.0.0.1:50051"
  std::vector<TensorSpec> native;
  std::unordered_map<std::string, size_t> index;  // by name
  std::vector<Progress> progress;
  v1::VersionOpened opened;
  uint64_t chunk_limit = 0;
  std::unique_ptr<RawCall> call;
  absl::Status over;  // not OK: nothing more can be pushed
  bool committed = false;

  absl::Status Open();
  absl::Status Declare();
  absl::Status AppendChunk(size_t tensor, absl::Span<const std::byte> payload, std::shared_ptr<const void> owner);
  absl::Status Send(grpc::ByteBuffer message, absl::string_view what = "");
  absl::Status SendLast(const v1::PushRequest& request);
  absl::Status Receive(v1::PushResponse::ResponseCase expected, v1::PushResponse& response);
  absl::Status Fail(const absl::Status& status, absl::string_view what = "");
  absl::Status FailAsServiceSays(absl::string_view what = "");
};

absl::Status VersionPush::State::Fail(const absl::Status& status, absl::string_view what) {
  over = Annotate(status, what.empty() ? context : absl::StrCat(context, ", ", what));
  call->Cancel();
  return over;
}

// A write that fails, and a stream that ends early, do not know why: the call's status does.
absl::Status VersionPush::State::FailAsServiceSays(absl::string_view what) {
  absl::Status status = call->Finish(options.timeout);
  if (status.ok()) status = absl::InternalError("the service ended the push before it was committed");
  return Fail(status, what);
}

absl::Status VersionPush::State::Send(grpc::ByteBuffer message, absl::string_view what) {
  const absl::Status status = call->Write(std::move(message), options.timeout);
  return status.ok() ? status : FailAsServiceSays(what);
}

absl::Status VersionPush::State::SendLast(const v1::PushRequest& request) {
  if (absl::Status status = Send(Serialize(request)); !status.ok()) return status;
  const absl::Status status = call->WritesDone(options.timeout);
  return status.ok() ? status : FailAsServiceSays();
}

absl::Status VersionPush::State::Receive(v1::PushResponse::ResponseCase expected, v1::PushResponse& response) {
  const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = call->Read(options.timeout);
  if (!message.ok()) return Fail(message.status());
  if (!message->has_value()) return FailAsServiceSays();
  if (absl::Status status = Parse(**message, response); !status.ok()) {
    return Fail(absl::InternalError(status.message()));
  }
  if (response.response_case() == expected) return absl::OkStatus();
  return Fail(absl::InternalError(absl::StrCat("the service answered with field ", response.response_case(),
                                               " of PushResponse where ", expected, " was expected")));
}

absl::Status VersionPush::State::Declare() {
  v1::PushRequest request;
  size_t bytes = 0;
  for (const TensorSpec& spec : native) {
    v1::TensorSpec& tensor = *request.mutable_declare()->add_tensors()->mutable_tensor();
    ToProto(spec, tensor);
    bytes += tensor.ByteSizeLong();
    if (bytes < kDeclareBytes) continue;
    if (absl::Status status = Send(Serialize(request)); !status.ok()) return status;
    request.Clear();
    bytes = 0;
  }
  request.mutable_declare()->set_last(true);
  return Send(Serialize(request));
}

absl::Status VersionPush::State::Open() {
  if (absl::Status status = Send(Serialize(OpenRequest(options))); !status.ok()) return status;
  if (absl::Status status = Declare(); !status.ok()) return status;
  v1::PushResponse response;
  if (absl::Status status = Receive(v1::PushResponse::kOpened, response); !status.ok()) return status;
  opened = response.opened();
  chunk_limit = ChunkLimit(opened);
  if (chunk_limit > 0) return absl::OkStatus();
  return Fail(absl::InternalError(absl::StrCat("the service wants chunks of ", opened.summary().chunk_bytes(),
                                               " bytes, at most ", opened.max_chunk_bytes())));
}

absl::Status VersionPush::State::AppendChunk(size_t tensor, absl::Span<const std::byte> payload,
                                             std::shared_ptr<const void> owner) {
  const TensorSpec& spec = native[tensor];
  auto& [sent, digester] = progress[tensor];
  const bool ends = sent + payload.size() == spec.ByteSize();
  if (digester == nullptr) digester = std::make_unique<TensorDigester>(opened.summary().chunk_bytes());

  ChunkHeader header;
  header.tensor = tensor;
  header.offset = sent;
  header.digest = DigestBytes(payload);
  digester->UpdateChunk(payload, header.digest, ends);
  sent += payload.size();
  if (ends) {
    header.tensor_digest = digester->Finish();
    digester.reset();
  }
  return Send(
      owner == nullptr ? CopyChunkMessage(header, payload) : MakeChunkMessage(header, payload, std::move(owner)),
      absl::StrCat("tensor ", Printable(spec.name)));
}

VersionPush::VersionPush(std::unique_ptr<State> state) : state_(std::move(state)) {}
VersionPush::~VersionPush() = default;  // cancels the call, which aborts a version that is not committed

const v1::VersionSummary& VersionPush::summary() const { return state_->opened.summary(); }
const std::vector<TensorSpec>& VersionPush::native() const { return state_->native; }

absl::Status VersionPush::Append(size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner) {
  State& state = *state_;
  if (!state.over.ok()) return state.over;
  if (index >= state.native.size()) {
    return absl::OutOfRangeError(
        absl::StrCat(state.context, ": there is no tensor ", index, "; ", state.native.size(), " were declared"));
  }
  const TensorSpec& spec = state.native[index];
  const uint64_t rest = spec.ByteSize() - state.progress[index].sent;
  if (bytes.size() > rest) {
    return absl::OutOfRangeError(absl::StrCat(state.context, ", tensor ", spec.ToString(), ": ", bytes.size(),
                                              " bytes more, but it lacks ", rest));
  }
  if (bytes.size() % ElementSize(spec.dtype) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(state.context, ", tensor ", spec.ToString(), ": ", bytes.size(),
                                                   " bytes are not whole elements of ", ElementSize(spec.dtype)));
  }
  while (!bytes.empty()) {
    // Cut at multiples of the chunk size within the tensor, wherever the caller's pieces begin.
    const uint64_t to_boundary = state.chunk_limit - state.progress[index].sent % state.chunk_limit;
    const auto payload = bytes.subspan(0, to_boundary);
    if (absl::Status status = state.AppendChunk(index, payload, owner); !status.ok()) return status;
    bytes.remove_prefix(payload.size());
  }
  return absl::OkStatus();
}

absl::Status VersionPush::Push(absl::string_view name, absl::Span<const std::byte> bytes,
                               std::shared_ptr<const void> owner) {
  const State& state = *state_;
  const auto found = state.index.find(std::string(name));
  if (found == state.index.end()) {
    return absl::NotFoundError(absl::StrCat(state.context, ": tensor ", Printable(name), " was not declared"));
  }
  const TensorSpec& spec = state.native[found->second];
  if (bytes.size() != spec.ByteSize()) {
    return absl::InvalidArgumentError(absl::StrCat(state.context, ", tensor ", spec.ToString(), ": expected ",
                                                   spec.ByteSize(), " bytes, got ", bytes.size()));
  }
  return Append(found->second, bytes, std::move(owner));
}

absl::StatusOr<v1::VersionSummary> VersionPush::Commit() {
  State& state = *state_;
  if (!state.over.ok()) return state.over;
  for (size_t i = 0; i < state.native.size(); ++i) {
    const TensorSpec& spec = state.native[i];
    if (state.progress[i].sent == spec.ByteSize()) continue;
    return absl::FailedPreconditionError(absl::StrCat(state.context, ", tensor ", spec.ToString(),
                                                      ": cannot commit, only ", state.progress[i].sent, " of ",
                                                      spec.ByteSize(), " bytes were pushed"));
  }
  v1::PushRequest request;
  request.mutable_commit();
  if (absl::Status status = state.SendLast(request); !status.ok()) return status;
  v1::PushResponse response;
  if (absl::Status status = state.Receive(v1::PushResponse::kCommitted, response); !status.ok()) return status;
  state.committed = true;
  state.over = absl::FailedPreconditionError(absl::StrCat(state.context, ": the version is committed"));
  return std::move(*response.mutable_committed()->mutable_summary());
}

absl::Status VersionPush::Abort(absl::string_view reason) {
  State& state = *state_;
  if (state.committed) return state.over;
  if (!state.over.ok()) return absl::OkStatus();
  v1::PushRequest request;
  request.mutable_abort()->set_reason(std::string(reason));
  if (absl::Status status = state.SendLast(request); !status.ok()) return status;
  v1::PushResponse response;
  if (absl::Status status = state.Receive(v1::PushResponse::kAborted, response); !status.ok()) return status;
  state.over = absl::FailedPreconditionError(absl::StrCat(state.context, ": the version was aborted: ", reason));
  return absl::OkStatus();
}

struct Publisher::State {
  std::string address;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::PushService::Stub> stub;
};

Publisher::Publisher(std::unique_ptr<State> state) : state_(std::move(state)) {}
Publisher::~Publisher() = default;

absl::StatusOr<std::unique_ptr<Publisher>> Publisher::Connect(const ChannelOptions& options) {
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = refit::Connect(options);
  if (!channel.ok()) return channel.status();
  auto state = std::make_unique<State>();
  state->address = options.address;
  state->stub = v1::PushService::NewStub(*channel);
  state->channel = *std::move(channel);
  return absl::WrapUnique(new Publisher(std::move(state)));
}

absl::StatusOr<std::unique_ptr<VersionPush>> Publisher::Open(const PublishOptions& options,
                                                             std::vector<TensorSpec> native) {
  auto push = std::make_unique<VersionPush::State>();
  push->options = options;
  push->context = absl::StrCat("push of ", options.model, "/", options.version, " to ", state_->address);
  for (size_t i = 0; i < native.size(); ++i) {
    // How long a name may be is for the service to say.
    const absl::Status status = Validate(native[i], std::numeric_limits<size_t>::max());
    if (!status.ok()) return Annotate(status, push->context);
    push->index.emplace(native[i].name, i);
  }
  push->progress.resize(native.size());
  push->native = std::move(native);
  push->call = RawCall::Start(state_->channel, kPushMethod);
  if (absl::Status status = push->Open(); !status.ok()) return status;
  return absl::WrapUnique(new VersionPush(std::move(push)));
}

absl::StatusOr<v1::VersionSummary> Publisher::Abort(const std::string& model, uint64_t version,
                                                    const std::string& reason) {
  v1::AbortVersionRequest request;
  request.set_model(model);
  request.set_version(version);
  request.set_reason(reason);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kAbortTimeout);
  v1::AbortVersionResponse response;
  const grpc::Status status = state_->stub->AbortVersion(&context, request, &response);
  if (!status.ok()) {
    return Annotate(FromGrpc(status), absl::StrCat("abort of ", model, "/", version, " at ", state_->address));
  }
  return std::move(*response.mutable_summary());
}

}  // namespace refit

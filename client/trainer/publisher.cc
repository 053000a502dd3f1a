#include "refit/publisher.h"

#include <google/protobuf/arena.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_map.h"
#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/calls/active_calls.h"
#include "client/calls/unary_call.h"
#include "client/trainer/shared_ring.h"
#include "common/net/address.h"
#include "common/net/byte_buffer.h"
#include "common/net/channel.h"
#include "common/net/messages.h"
#include "common/net/raw_call.h"
#include "common/net/shared_segment.h"
#include "common/net/status.h"
#include "common/wire/chunk_codec.h"
#include "common/wire/digest.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "refit/v1/push.grpc.pb.h"

namespace refit {
namespace {

constexpr char kPushMethod[] = "/refit.v1.PushService/Push";
using Stub = v1::PushService::Stub;

constexpr std::chrono::seconds kUnaryTimeout{60};
constexpr std::chrono::seconds kAnswerMargin{10};

// A part of a declaration is sent once it is this large.
constexpr size_t kDeclareBytes = 128 << 10;
// What a message may hold besides its payload.
constexpr uint64_t kMessageOverhead = 1 << 10;
// A few chunks, so that payloads are still in the cache when the service reads them. Short chunks go over the
// connection, and so do those that would soon fill the ring.
constexpr uint64_t kRingBytes = 16 << 20;
constexpr RawCall::Batching kShortChunks{kBatchBytes, kMaxBatchBytes - kBatchBytes, std::chrono::milliseconds(2),
                                         &MakeBatchMessage};
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
  open.set_keep_dtype_regex(options.keep_dtype_regex);
  open.set_publisher(options.publisher);
  open.set_hold_installs(options.hold_installs);
  open.set_trainer_epoch(options.trainer_epoch);
  open.set_allow_empty(options.allow_empty);
  if (options.world > 1) {
    open.set_rank(options.rank);
    open.set_world(options.world);
  }
  return request;
}

std::string ContextOf(const PublishOptions& options, const std::string& address) {
  const std::string rank =
      options.world > 1 ? absl::StrCat(" (rank ", options.rank, " of ", options.world, ")") : std::string();
  return absl::StrCat("push of ", options.model, "/", options.version, rank, " to ", address);
}

absl::Status CheckShard(const TensorPart& shard) {
  // How long a name may be is for the service to say.
  if (absl::Status status = Validate(shard.tensor, std::numeric_limits<size_t>::max()); !status.ok()) return status;
  const absl::Status status = Validate(shard.box, shard.tensor.shape);
  return status.ok() ? status : Annotate(status, absl::StrCat("tensor ", Printable(shard.tensor.name)));
}

// The longest chunk that both the version's chunk size and the limits allow; 0 if that is none.
uint64_t ChunkLimit(const v1::VersionOpened& opened) {
  const uint64_t limit =
      std::min({opened.summary().chunk_bytes(), opened.max_chunk_bytes(), kMaxMessageBytes - kMessageOverhead});
  return limit / kElementBytes * kElementBytes;
}

// Whether somebody other than the service ended a stream: its process, a network, or a proxy in between.
bool WasCut(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::StrContains(status.message(), "RST_STREAM") ||
         status.message() == "Stream removed";
}

// Proxies and meshes end streams after a time of their own, and tell nobody that it was they.
absl::Status WithTimeToTheCut(const absl::Status& status, std::chrono::steady_clock::duration lasted) {
  if (!WasCut(status)) return status;
  const double seconds = std::chrono::duration<double>(lasted).count();
  return absl::Status(
      status.code(),
      absl::StrCat(status.message(), absl::StrFormat(" (the stream was cut after %.1f s", seconds),
                   ": the service ended, or the network, or a proxy's timeout. A push is one stream: a proxy or mesh "
                   "must let streams last as long as a push, such as by a route timeout of 0 in Envoy and Istio)"));
}

}  // namespace

// The stream of one version. The first error ends it, and is what every later call gets.
struct VersionPush::State {
  struct Progress {
    uint64_t sent = 0;                         // or digested only
    std::unique_ptr<TensorDigester> digester;  // from the first chunk to the last
  };

  const ForkGuard guard;
  PublishOptions options;
  Transport transport = Transport::kAuto;
  std::string context;  // "push of default/3 (rank 2 of 8) to 127.0.0.1:50051"
  std::vector<TensorPart> shards;
  absl::flat_hash_map<absl::string_view, size_t> index;  // by name, once one is pushed by that
  std::vector<Progress> progress;
  v1::VersionOpened opened;
  std::vector<bool> digest_only;
  std::vector<bool> unneeded;
  uint64_t chunk_limit = 0;
  uint64_t sent_bytes = 0;           // of payload
  uint64_t received_bytes = 0;       // of those, what the service has acknowledged
  std::unique_ptr<SharedRing> ring;  // null: payloads go over the connection
  std::unique_ptr<RawCall> call;
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();  // of `call`
  std::unique_ptr<ActiveCalls::Entry> entry;                                       // of `call`
  absl::Status over;                                                               // not OK: nothing more can be pushed
  bool committed = false;

  absl::Status TakeShards(std::vector<TensorPart> declared);
  void IndexNames();
  absl::Status MakeRing(const std::string& address);
  absl::Status Open();
  absl::Status Declare();
  absl::Status OnOpened();
  absl::Status Mark(const google::protobuf::RepeatedField<uint64_t>& tensors, std::vector<bool>& marks);
  absl::Status CheckAppend(size_t tensor, absl::Span<const std::byte> bytes) const;
  absl::Status WaitForWindow(uint64_t payload_bytes);
  absl::Status WaitForReceived();
  absl::Status SendShort(const ChunkHeader& header, absl::Span<const std::byte> payload);
  absl::Status SendShared(ChunkHeader header, absl::Span<const std::byte> payload);
  absl::Status AppendDigest(size_t tensor, absl::Span<const std::byte> bytes);
  absl::Status AppendChunk(size_t tensor, absl::Span<const std::byte> payload, std::shared_ptr<const void> owner);
  TensorDigester& DigesterOf(size_t tensor);
  std::optional<uint64_t> Advance(size_t tensor, uint64_t bytes);
  absl::Status Send(grpc::ByteBuffer message, absl::string_view what = "");
  absl::Status SendLast(const v1::PushRequest& request);
  absl::Status Read(v1::PushResponse& response);
  absl::Status Receive(v1::PushResponse::ResponseCase expected, v1::PushResponse& response);
  void OnWaiting(const v1::PushWaiting& waiting) const;
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
  return Fail(WithTimeToTheCut(status, std::chrono::steady_clock::now() - begin), what);
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

absl::Status VersionPush::State::Read(v1::PushResponse& response) {
  const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = call->Read(options.timeout);
  if (!message.ok()) return Fail(message.status());
  if (!message->has_value()) return FailAsServiceSays();
  const absl::Status status = Parse(**message, response);
  return status.ok() ? status : Fail(absl::InternalError(status.message()));
}

// How long other ranks may keep this one waiting is for the service to say; each `waiting` shows that it lives.
absl::Status VersionPush::State::Receive(v1::PushResponse::ResponseCase expected, v1::PushResponse& response) {
  while (true) {
    if (absl::Status status = Read(response); !status.ok()) return status;
    if (response.response_case() == expected) return absl::OkStatus();
    if (response.has_received()) continue;  // was not waited for
    if (!response.has_waiting()) break;
    OnWaiting(response.waiting());
  }
  return Fail(absl::InternalError(absl::StrCat("the service answered with field ", response.response_case(),
                                               " of PushResponse where ", expected, " was expected")));
}

void VersionPush::State::OnWaiting(const v1::PushWaiting& waiting) const {
  if (options.on_waiting) options.on_waiting(absl::MakeConstSpan(waiting.ranks().data(), waiting.ranks().size()));
}

absl::Status VersionPush::State::TakeShards(std::vector<TensorPart> declared) {
  if (options.rank >= options.world) {
    return absl::InvalidArgumentError(
        absl::StrCat(context, ": rank ", options.rank, " is not below world ", options.world));
  }
  shards = std::move(declared);
  for (const TensorPart& shard : shards) {
    if (absl::Status status = CheckShard(shard); !status.ok()) return Annotate(status, context);
  }
  progress.resize(shards.size());
  digest_only.resize(shards.size());
  unneeded.resize(shards.size());
  return absl::OkStatus();
}

void VersionPush::State::IndexNames() {
  if (!index.empty()) return;
  index.reserve(shards.size());
  for (size_t i = 0; i < shards.size(); ++i) index.emplace(shards[i].tensor.name, i);
}

// Where there is none, or the service is elsewhere, all goes over the connection.
absl::Status VersionPush::State::MakeRing(const std::string& address) {
  if (transport == Transport::kWire || (transport == Transport::kAuto && !IsLocal(address))) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<SharedRing>> made = SharedRing::Create(kRingBytes);
  if (made.ok()) {
    ring = *std::move(made);
  } else if (transport == Transport::kSharedMemory) {
    return Annotate(made.status(), context);
  }
  return absl::OkStatus();
}

absl::Status VersionPush::State::Declare() {
  google::protobuf::Arena arena;  // for very many small parts; those of a message that was sent serve the next
  v1::PushRequest& request = *google::protobuf::Arena::CreateMessage<v1::PushRequest>(&arena);
  size_t bytes = 0;
  for (const TensorPart& shard : shards) {
    v1::DeclaredTensor& declared = *request.mutable_declare()->add_tensors();
    ToProto(shard.tensor, *declared.mutable_tensor());
    if (!shard.is_whole()) ToProto(shard.box, *declared.mutable_box());
    bytes += declared.ByteSizeLong();
    if (bytes < kDeclareBytes) continue;
    if (absl::Status status = Send(Serialize(request)); !status.ok()) return status;
    request.mutable_declare()->Clear();
    bytes = 0;
  }
  request.mutable_declare()->set_last(true);
  return Send(Serialize(request));
}

absl::Status VersionPush::State::Open() {
  v1::PushRequest request = OpenRequest(options);
  if (ring != nullptr) *request.mutable_open()->mutable_segment() = ring->announcement();
  if (absl::Status status = Send(Serialize(request)); !status.ok()) return status;
  if (absl::Status status = Declare(); !status.ok()) return status;
  v1::PushResponse response;
  if (absl::Status status = Receive(v1::PushResponse::kOpened, response); !status.ok()) return status;
  opened = std::move(*response.mutable_opened());
  return OnOpened();
}

absl::Status VersionPush::State::Mark(const google::protobuf::RepeatedField<uint64_t>& tensors,
                                      std::vector<bool>& marks) {
  for (const uint64_t tensor : tensors) {
    if (tensor >= shards.size()) {
      return Fail(absl::InternalError(absl::StrCat("the service does not want the bytes of tensor number ", tensor,
                                                   "; ", shards.size(), " were declared")));
    }
    marks[tensor] = true;
  }
  return absl::OkStatus();
}

absl::Status VersionPush::State::OnOpened() {
  // A service that knows no ranks would take this one for the whole trainer, and commit without the others.
  if (options.world > 1 && opened.summary().world() != options.world) {
    return Fail(absl::InternalError(absl::StrCat("the service opened it for ", opened.summary().world(), " ranks")));
  }
  if (!options.keep_dtype_regex.empty() && !opened.keeps_dtypes()) {
    return Fail(absl::FailedPreconditionError(
        "the service is older than keep_dtype_regex, and would cast what is to keep its dtype; update it, or cast the "
        "others before they are pushed"));
  }
  if (absl::Status status = Mark(opened.digest_only(), digest_only); !status.ok()) return status;
  if (absl::Status status = Mark(opened.unneeded(), unneeded); !status.ok()) return status;
  if (!opened.shared_memory()) {
    if (transport == Transport::kSharedMemory) {
      return Fail(absl::UnavailableError("the service does not take this process's shared memory"));
    }
    ring.reset();
  }
  chunk_limit = ChunkLimit(opened);
  if (chunk_limit > 0) return absl::OkStatus();
  return Fail(absl::InternalError(absl::StrCat("the service wants chunks of ", opened.summary().chunk_bytes(),
                                               " bytes, at most ", opened.max_chunk_bytes())));
}

absl::Status VersionPush::State::CheckAppend(size_t tensor, absl::Span<const std::byte> bytes) const {
  if (absl::Status status = guard.Check(context); !status.ok()) return status;
  if (!over.ok()) return over;
  if (tensor >= shards.size()) {
    return absl::OutOfRangeError(
        absl::StrCat(context, ": there is no tensor ", tensor, "; ", shards.size(), " were declared"));
  }
  const TensorPart& shard = shards[tensor];
  const uint64_t rest = shard.ByteSize() - progress[tensor].sent;
  if (bytes.size() > rest) {
    return absl::OutOfRangeError(
        absl::StrCat(context, ", tensor ", shard.ToString(), ": ", bytes.size(), " bytes more, but it lacks ", rest));
  }
  const size_t element = ElementSize(shard.tensor.dtype);
  if (bytes.size() % element != 0) {
    return absl::InvalidArgumentError(absl::StrCat(context, ", tensor ", shard.ToString(), ": ", bytes.size(),
                                                   " bytes are not whole elements of ", element));
  }
  if (bytes.data() != nullptr || bytes.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(context, ", tensor ", shard.ToString(), ": got ", bytes.size(), " bytes at a null address"));
}

TensorDigester& VersionPush::State::DigesterOf(size_t tensor) {
  std::unique_ptr<TensorDigester>& digester = progress[tensor].digester;
  if (digester == nullptr) digester = std::make_unique<TensorDigester>(opened.summary().chunk_bytes());
  return *digester;
}

// The tensor digest, once `bytes` more, already digested, have made the shard complete.
std::optional<uint64_t> VersionPush::State::Advance(size_t tensor, uint64_t bytes) {
  auto& [sent, digester] = progress[tensor];
  sent += bytes;
  if (sent < shards[tensor].ByteSize()) return std::nullopt;
  const uint64_t digest = digester->Finish();
  digester.reset();
  return digest;
}

absl::Status VersionPush::State::AppendDigest(size_t tensor, absl::Span<const std::byte> bytes) {
  if (bytes.empty()) return absl::OkStatus();
  DigesterOf(tensor).Update(bytes);
  ChunkHeader header;
  header.tensor = tensor;
  header.digest = DigestBytes({});
  header.tensor_digest = Advance(tensor, bytes.size());
  if (!header.tensor_digest.has_value()) return absl::OkStatus();
  return SendShort(header, {});
}

// Until `payload_bytes` more may be under way.
absl::Status VersionPush::State::WaitForWindow(uint64_t payload_bytes) {
  if (opened.window_bytes() == 0) return absl::OkStatus();
  while (sent_bytes != received_bytes && sent_bytes + payload_bytes - received_bytes > opened.window_bytes()) {
    if (absl::Status status = WaitForReceived(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status VersionPush::State::WaitForReceived() {
  v1::PushResponse response;
  if (absl::Status status = Receive(v1::PushResponse::kReceived, response); !status.ok()) return status;
  received_bytes = std::clamp(response.received().bytes(), received_bytes, sent_bytes);
  if (ring != nullptr) ring->Release(received_bytes);
  return absl::OkStatus();
}

absl::Status VersionPush::State::SendShort(const ChunkHeader& header, absl::Span<const std::byte> payload) {
  const absl::Status status = call->WriteTogether(
      [&](std::string& entries) { AppendBatchEntry(header, payload, entries); }, kShortChunks, options.timeout);
  return status.ok() ? status
                     : FailAsServiceSays(absl::StrCat("tensor ", Printable(shards[header.tensor].tensor.name)));
}

// Puts the payload into the ring and sends where it lies.
absl::Status VersionPush::State::SendShared(ChunkHeader header, absl::Span<const std::byte> payload) {
  std::optional<uint64_t> place;
  while (!(place = ring->Reserve(payload.size(), sent_bytes)).has_value()) {
    if (absl::Status status = WaitForReceived(); !status.ok()) return status;
  }
  header.digest = CopyAndDigest(payload, ring->at(*place));
  const bool ends = header.offset + payload.size() == shards[header.tensor].ByteSize();
  DigesterOf(header.tensor).UpdateChunk(payload, header.digest, ends);
  header.tensor_digest = Advance(header.tensor, payload.size());
  v1::PushRequest request;
  v1::SharedChunk& shared = *request.mutable_shared_chunk();
  ToProto(header, *shared.mutable_chunk());
  shared.set_begin(*place);
  shared.set_bytes(payload.size());
  return Send(Serialize(request), absl::StrCat("tensor ", Printable(shards[header.tensor].tensor.name)));
}

absl::Status VersionPush::State::AppendChunk(size_t tensor, absl::Span<const std::byte> payload,
                                             std::shared_ptr<const void> owner) {
  if (absl::Status status = WaitForWindow(payload.size()); !status.ok()) return status;
  sent_bytes += payload.size();
  const TensorPart& shard = shards[tensor];
  ChunkHeader header;
  header.tensor = tensor;
  header.offset = progress[tensor].sent;
  if (ring != nullptr && payload.size() >= kShortChunkBytes && payload.size() <= kRingBytes / 4)
    return SendShared(header, payload);
  header.digest = DigestBytes(payload);
  const bool ends = header.offset + payload.size() == shard.ByteSize();
  DigesterOf(tensor).UpdateChunk(payload, header.digest, ends);
  header.tensor_digest = Advance(tensor, payload.size());
  if (payload.size() < kShortChunkBytes) return SendShort(header, payload);
  return Send(
      owner == nullptr ? CopyChunkMessage(header, payload) : MakeChunkMessage(header, payload, std::move(owner)),
      absl::StrCat("tensor ", Printable(shard.tensor.name)));
}

VersionPush::VersionPush(OwnedByProcess<State> state) : state_(std::move(state)) {}
VersionPush::~VersionPush() = default;  // cancels the call, which aborts a version that is not committed

const v1::VersionSummary& VersionPush::summary() const { return state_->opened.summary(); }
const std::vector<TensorPart>& VersionPush::shards() const { return state_->shards; }
bool VersionPush::digest_only(size_t index) const {
  return index < state_->digest_only.size() && state_->digest_only[index];
}

bool VersionPush::unneeded(size_t index) const { return index < state_->unneeded.size() && state_->unneeded[index]; }

absl::Status VersionPush::Append(size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner) {
  State& state = *state_;
  if (absl::Status status = state.CheckAppend(index, bytes); !status.ok()) return status;
  if (state.unneeded[index]) {
    state.progress[index].sent += bytes.size();
    return absl::OkStatus();
  }
  if (state.digest_only[index]) return state.AppendDigest(index, bytes);
  while (!bytes.empty()) {
    // Cut at multiples of the chunk size within the shard, wherever the caller's pieces begin.
    const uint64_t to_boundary = state.chunk_limit - state.progress[index].sent % state.chunk_limit;
    const auto payload = bytes.subspan(0, to_boundary);
    if (absl::Status status = state.AppendChunk(index, payload, owner); !status.ok()) return status;
    bytes.remove_prefix(payload.size());
  }
  return absl::OkStatus();
}

absl::Status VersionPush::Push(absl::string_view name, absl::Span<const std::byte> bytes,
                               std::shared_ptr<const void> owner) {
  State& state = *state_;
  state.IndexNames();
  const auto found = state.index.find(name);
  if (found == state.index.end()) {
    return absl::NotFoundError(absl::StrCat(state.context, ": tensor ", Printable(name), " was not declared"));
  }
  const TensorPart& shard = state.shards[found->second];
  if (bytes.size() != shard.ByteSize()) {
    return absl::InvalidArgumentError(absl::StrCat(state.context, ", tensor ", shard.ToString(), ": expected ",
                                                   shard.ByteSize(), " bytes, got ", bytes.size()));
  }
  return Append(found->second, bytes, std::move(owner));
}

absl::StatusOr<v1::VersionSummary> VersionPush::Commit() {
  State& state = *state_;
  if (absl::Status status = state.guard.Check(state.context); !status.ok()) return status;
  if (!state.over.ok()) return state.over;
  for (size_t i = 0; i < state.shards.size(); ++i) {
    const TensorPart& shard = state.shards[i];
    if (state.progress[i].sent == shard.ByteSize() || state.unneeded[i]) continue;
    return absl::FailedPreconditionError(absl::StrCat(state.context, ", tensor ", shard.ToString(),
                                                      ": cannot commit, only ", state.progress[i].sent, " of ",
                                                      shard.ByteSize(), " bytes were pushed"));
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
  if (absl::Status status = state.guard.Check(state.context); !status.ok()) return status;
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
  const ForkGuard guard;
  std::string address;
  Transport transport = Transport::kAuto;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::PushService::Stub> stub;
  std::shared_ptr<ActiveCalls> calls = std::make_shared<ActiveCalls>();
};

Publisher::Publisher(OwnedByProcess<State> state) : state_(std::move(state)) {}
Publisher::~Publisher() = default;

absl::Status Publisher::CheckNotForked() const {
  return state_->guard.Check(absl::StrCat("publisher to ", state_->address));
}

absl::StatusOr<std::unique_ptr<Publisher>> Publisher::Connect(const ChannelOptions& options) {
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = refit::Connect(options);
  if (!channel.ok()) return channel.status();
  auto state = MakeOwnedByProcess<State>();
  state->address = options.address;
  state->transport = options.transport;
  state->stub = v1::PushService::NewStub(*channel);
  state->channel = *std::move(channel);
  return absl::WrapUnique(new Publisher(std::move(state)));
}

absl::StatusOr<std::unique_ptr<VersionPush>> Publisher::Open(const PublishOptions& options,
                                                             std::vector<TensorSpec> native) {
  return OpenShards(options, WholeParts(std::move(native)));
}

absl::StatusOr<std::unique_ptr<VersionPush>> Publisher::OpenShards(const PublishOptions& options,
                                                                   std::vector<TensorPart> shards) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  auto push = MakeOwnedByProcess<VersionPush::State>();
  push->options = options;
  push->context = ContextOf(options, state_->address);
  if (absl::Status status = push->TakeShards(std::move(shards)); !status.ok()) return status;
  push->transport = state_->transport;
  if (absl::Status status = push->MakeRing(state_->address); !status.ok()) return status;
  push->begin = std::chrono::steady_clock::now();
  push->call = RawCall::Start(state_->channel, kPushMethod);
  push->entry = std::make_unique<ActiveCalls::Entry>(state_->calls, [call = push->call.get()] { call->Cancel(); });
  if (absl::Status status = push->Open(); !status.ok()) return status;
  return absl::WrapUnique(new VersionPush(std::move(push)));
}

absl::StatusOr<v1::VersionSummary> Publisher::Abort(const std::string& model, uint64_t version,
                                                    const std::string& reason) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  v1::AbortVersionRequest request;
  request.set_model(model);
  request.set_version(version);
  request.set_reason(reason);
  absl::StatusOr<v1::AbortVersionResponse> response =
      CallUnary(*state_->stub, &Stub::AbortVersion, request, kUnaryTimeout,
                absl::StrCat("abort of ", model, "/", version, " at ", state_->address), state_->calls);
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_summary());
}

absl::StatusOr<v1::VersionSummary> Publisher::ReleaseInstalls(const std::string& model, uint64_t version) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  v1::ReleaseInstallsRequest request;
  request.set_model(model);
  request.set_version(version);
  absl::StatusOr<v1::ReleaseInstallsResponse> response =
      CallUnary(*state_->stub, &Stub::ReleaseInstalls, request, kUnaryTimeout,
                absl::StrCat("release of ", model, "/", version, " at ", state_->address), state_->calls);
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_summary());
}

absl::StatusOr<uint32_t> Publisher::AwaitWorkers(const Await& await, std::vector<std::string>* gone) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  v1::AwaitWorkersRequest request;
  request.set_model(await.model);
  request.set_version(await.version);
  if (await.trainer_epoch.has_value()) request.set_trainer_epoch(*await.trainer_epoch);
  request.set_phase(await.phase == Await::Phase::kStaged ? v1::WORKER_PHASE_STAGED : v1::WORKER_PHASE_INSTALLED);
  request.set_workers(await.workers);
  request.set_all(await.all);
  request.set_timeout_ms(static_cast<uint64_t>(std::max<int64_t>(await.timeout.count(), 0)));
  // The service answers at the timeout; the margin is for one that does not.
  const absl::StatusOr<v1::AwaitWorkersResponse> response = CallUnary(
      *state_->stub, &Stub::AwaitWorkers, request, await.timeout + kAnswerMargin,
      absl::StrCat("waiting for workers of ", await.model, "/", await.version, " at ", state_->address), state_->calls);
  if (!response.ok()) return response.status();
  if (gone != nullptr) gone->assign(response->gone().begin(), response->gone().end());
  return response->workers();
}

absl::StatusOr<Publisher::LastRun> Publisher::AskLastRun(const std::string& model) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  const auto inspect = v1::InspectService::NewStub(state_->channel);
  v1::ListVersionsRequest request;
  request.set_model(model);
  const absl::StatusOr<v1::ListVersionsResponse> known =
      CallUnary(*inspect, &v1::InspectService::Stub::ListVersions, request, kUnaryTimeout,
                absl::StrCat("asking for the versions of ", model, " at ", state_->address), state_->calls);
  if (!known.ok()) return known.status();
  LastRun last;
  const auto add = [&last](uint64_t epoch, uint64_t number) {
    last.trainer_epoch = std::max(last.trainer_epoch, epoch);
    last.version = std::max(last.version, number);
  };
  for (const v1::VersionSummary& version : known->versions()) add(version.trainer_epoch(), version.version());
  for (const v1::Lineage& lineage : known->lineages()) add(lineage.trainer_epoch(), lineage.newest_committed());
  return last;
}

absl::StatusOr<int> Publisher::AskConnectedWorkers(const std::string& model) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  const auto inspect = v1::InspectService::NewStub(state_->channel);
  v1::ListWorkersRequest request;
  request.set_model(model);
  const absl::StatusOr<v1::ListWorkersResponse> known =
      CallUnary(*inspect, &v1::InspectService::Stub::ListWorkers, request, kUnaryTimeout,
                absl::StrCat("asking for the workers of ", model, " at ", state_->address), state_->calls);
  if (!known.ok()) return known.status();
  return static_cast<int>(
      absl::c_count_if(known->workers(), [](const v1::Worker& worker) { return worker.connected(); }));
}

void Publisher::Cancel() {
  if (!state_->guard.forked()) state_->calls->Cancel();
}

}  // namespace refit

#include "client/subscriber.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <set>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "client/lease.h"
#include "client/pull_receiver.h"
#include "common/net/byte_buffer.h"
#include "common/net/messages.h"
#include "common/net/raw_reader.h"
#include "common/net/shared_segment.h"
#include "common/net/status.h"
#include "common/tensor/slab.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "refit/v1/pull.grpc.pb.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kPullMethod[] = "/refit.v1.PullService/Pull";
constexpr std::chrono::seconds kInfoTimeout{10};
constexpr std::chrono::milliseconds kStartTimeout = std::chrono::seconds(60);
constexpr std::chrono::seconds kEndLeaseTimeout{5};
constexpr char kWatchMethod[] = "/refit.v1.PullService/WatchVersions";

// Longer than any process lives, short enough for any clock.
constexpr std::chrono::milliseconds kNoTimeout = std::chrono::hours(24 * 365);

std::string Version(const PullOptions& options) {
  return options.version.has_value() ? absl::StrCat(*options.version) : "latest";
}

v1::PullRequest MakeRequest(const PullOptions& options) {
  v1::PullRequest request;
  request.set_model(options.model);
  if (options.version.has_value()) {
    request.mutable_version()->set_number(*options.version);
  } else {
    request.mutable_version()->set_latest_committed(true);
  }
  request.set_worker(options.worker);
  request.set_batches(true);
  request.set_filter(options.filter);
  request.mutable_names()->Assign(options.names.begin(), options.names.end());
  for (const LayoutRule& rule : options.rules) ToProto(rule, *request.add_rules());
  for (const auto& [name, box] : options.boxes) {
    v1::NamedBox& named = *request.add_boxes();
    named.set_name(name);
    ToProto(box, *named.mutable_box());
  }
  return request;
}

// Pooled host memory.
class MemorySink final : public TensorSink {
 public:
  MemorySink(BufferPool& pool, std::vector<PulledTensor>& tensors) : pool_(pool), tensors_(tensors) {}

  absl::Status Begin(const v1::VersionSummary& version, const std::vector<TensorPart>& tensors) override {
    // What earlier versions left, and this one cannot use.
    pool_.TrimTo(version.bytes());
    tensors_.reserve(tensors.size());
    for (const TensorPart& part : tensors) tensors_.push_back({part, nullptr});
    return absl::OkStatus();
  }

  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override {
    PulledTensor& tensor = tensors_[index];
    absl::StatusOr<std::shared_ptr<Buffer>> data =
        small_.Get(tensor.part.ByteSize(), [this](size_t size) { return pool_.Get(size); });
    if (!data.ok()) return Annotate(data.status(), absl::StrCat("memory for tensor ", tensor.part.ToString()));
    tensor.data = *std::move(data);
    return tensor.data->span();
  }

  bool Adopt(size_t index, std::shared_ptr<Buffer> mapped) override {
    tensors_[index].data = std::move(mapped);
    return true;
  }

  absl::Status Done(size_t) override { return absl::OkStatus(); }

 private:
  BufferPool& pool_;
  Slab small_;
  std::vector<PulledTensor>& tensors_;
};

}  // namespace

struct Subscriber::State {
  std::string address;
  Transport transport = Transport::kAuto;
  std::shared_ptr<grpc::Channel> channel;
  BufferPool pool{std::numeric_limits<int64_t>::max()};

  std::mutex mutex;
  std::set<RawReader*> calls;  // under way
  bool cancelled = false;

  class ActiveCall;
  class PullLease;

  // Whether this process can map the service's memory. UNAVAILABLE, saying why, if it must and cannot.
  absl::StatusOr<bool> CanShare() const;
};

// A call that Cancel reaches.
class Subscriber::State::ActiveCall {
 public:
  ActiveCall(State& state, const std::string& method, const google::protobuf::MessageLite& request,
             std::chrono::milliseconds timeout)
      : state_(state), reader_(RawReader::Start(state.channel, method, Serialize(request), timeout)) {
    const std::lock_guard lock(state_.mutex);
    state_.calls.insert(reader_.get());
    if (state_.cancelled) reader_->Cancel();
  }
  ~ActiveCall() {
    const std::lock_guard lock(state_.mutex);
    state_.calls.erase(reader_.get());
  }
  ActiveCall(const ActiveCall&) = delete;
  ActiveCall& operator=(const ActiveCall&) = delete;

  RawReader* operator->() { return reader_.get(); }

 private:
  State& state_;
  std::unique_ptr<RawReader> reader_;
};

// A pull's call, which goes on until the memory that was mapped is let go of.
class Subscriber::State::PullLease final : public Lease {
 public:
  PullLease(std::shared_ptr<State> state, const v1::PullRequest& request, std::chrono::milliseconds timeout)
      : state_(std::move(state)), call_(*state_, kPullMethod, request, timeout) {}
  // A lease that cannot be given back ends with the call.
  ~PullLease() override {
    if (number_ == 0) return;
    v1::EndLeaseRequest request;
    request.set_lease(number_);
    v1::EndLeaseResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kEndLeaseTimeout);
    (void)v1::PullService::NewStub(state_->channel)->EndLease(&context, request, &response);
  }

  ActiveCall& call() { return call_; }
  void set_number(uint64_t number) { number_ = number; }

 private:
  const std::shared_ptr<State> state_;
  ActiveCall call_;
  uint64_t number_ = 0;
};

absl::StatusOr<bool> Subscriber::State::CanShare() const {
  if (transport == Transport::kWire || (transport == Transport::kAuto && !IsLocal(address))) return false;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kInfoTimeout);
  v1::GetServerInfoResponse info;
  const grpc::Status asked = v1::InspectService::NewStub(channel)->GetServerInfo(&context, {}, &info);
  absl::Status status = FromGrpc(asked);
  if (status.ok() && !info.has_shared_memory()) status = absl::UnavailableError("the service shares no memory");
  if (status.ok()) status = MappedSegment::Open(info.shared_memory()).status();
  if (status.ok()) return true;
  if (transport == Transport::kAuto) return false;
  return absl::UnavailableError(absl::StrCat("service at ", address, ": ", status.message()));
}

Subscriber::Subscriber(std::shared_ptr<State> state) : state_(std::move(state)) {}
Subscriber::~Subscriber() = default;

absl::StatusOr<std::unique_ptr<Subscriber>> Subscriber::Connect(const ChannelOptions& options) {
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = refit::Connect(options);
  if (!channel.ok()) return channel.status();
  auto state = std::make_shared<State>();
  state->address = options.address;
  state->transport = options.transport;
  state->channel = *std::move(channel);
  return absl::WrapUnique(new Subscriber(std::move(state)));
}

absl::StatusOr<PullResult> Subscriber::Pull(const PullOptions& options, TensorSink& sink) {
  const std::string context = absl::StrCat("pull of ", options.model, "/", Version(options), " from ", state_->address);
  const Clock::time_point begin = Clock::now();
  std::chrono::nanoseconds waited{0};

  const absl::StatusOr<bool> can_share = state_->CanShare();
  if (!can_share.ok()) return can_share.status();
  v1::PullRequest request = MakeRequest(options);
  request.set_shared_memory(*can_share);
  const auto lease = std::make_shared<State::PullLease>(state_, request, options.idle_timeout);
  State::ActiveCall& call = lease->call();
  PullReceiver receiver(options, context, sink, lease);
  while (receiver.lease() == 0) {
    const Clock::time_point wait_begin = Clock::now();
    const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = call->Read(options.idle_timeout);
    waited += Clock::now() - wait_begin;
    if (!message.ok()) return Annotate(message.status(), context);
    if (!message->has_value()) break;
    if (absl::Status status = receiver.OnMessage(**message); !status.ok()) return status;
  }
  if (receiver.lease() != 0) {
    lease->set_number(receiver.lease());
  } else if (absl::Status status = call->Finish(options.idle_timeout); !status.ok()) {
    return Annotate(status, context);
  }
  if (absl::Status status = receiver.OnEnd(); !status.ok()) return status;

  PullResult result = receiver.result();
  result.elapsed = Clock::now() - begin;
  result.waited = waited;
  return result;
}

absl::StatusOr<PulledVersion> Subscriber::Pull(const PullOptions& options) {
  PulledVersion version;
  MemorySink sink(state_->pool, version.tensors);
  absl::StatusOr<PullResult> result = Pull(options, sink);
  if (!result.ok()) return result.status();
  version.result = *std::move(result);
  return version;
}

absl::Status Subscriber::Watch(const std::string& model, std::optional<uint64_t> after,
                               const std::function<bool(const v1::VersionSummary&)>& on_event,
                               std::chrono::milliseconds idle_timeout, const std::string& worker) {
  const std::string context = absl::StrCat("watch of ", model, " at ", state_->address);
  if (idle_timeout == std::chrono::milliseconds::zero()) idle_timeout = kNoTimeout;
  v1::WatchVersionsRequest request;
  request.set_model(model);
  request.set_worker(worker);
  if (after.has_value()) request.set_after(*after);

  State::ActiveCall call(*state_, kWatchMethod, request, std::min(idle_timeout, kStartTimeout));
  while (true) {
    const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = call->Read(idle_timeout);
    if (!message.ok()) return Annotate(message.status(), context);
    if (!message->has_value()) break;
    v1::VersionEvent event;
    if (absl::Status status = Parse(**message, event); !status.ok()) {
      return absl::InternalError(absl::StrCat(context, ": ", status.message()));
    }
    if (!on_event(event.version())) return absl::OkStatus();
  }
  const absl::Status status = call->Finish(idle_timeout);
  return Annotate(status.ok() ? absl::UnavailableError("the service ended the watch") : status, context);
}

void Subscriber::Cancel() {
  const std::lock_guard lock(state_->mutex);
  state_->cancelled = true;
  for (RawReader* call : state_->calls) call->Cancel();
}

}  // namespace refit

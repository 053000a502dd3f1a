#include "refit/subscriber.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <random>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/calls/active_calls.h"
#include "client/calls/unary_call.h"
#include "client/worker/backoff.h"
#include "client/worker/lease.h"
#include "client/worker/pull_receiver.h"
#include "common/limits/within_memory.h"
#include "common/net/address.h"
#include "common/net/byte_buffer.h"
#include "common/net/channel.h"
#include "common/net/messages.h"
#include "common/net/raw_reader.h"
#include "common/net/shared_segment.h"
#include "common/net/status.h"
#include "common/net/steady_deadline.h"
#include "common/tensor/slab.h"
#include "refit/fork_guard.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "refit/v1/pull.grpc.pb.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kPullMethod[] = "/refit.v1.PullService/Pull";
constexpr std::chrono::seconds kInfoTimeout{10};
constexpr std::chrono::milliseconds kStartTimeout = std::chrono::seconds(60);
constexpr std::chrono::milliseconds kEndLeaseTimeout{500};
constexpr std::chrono::seconds kReportTimeout{10};
constexpr std::chrono::milliseconds kFirstPause{100};
constexpr std::chrono::seconds kLongestPause{2};
// A chunk that comes damaged this often has not lost its bytes on the way.
constexpr int kMostDamaged = 3;
constexpr char kWatchMethod[] = "/refit.v1.PullService/WatchVersions";

// Longer than any process lives, short enough for any clock.
constexpr std::chrono::milliseconds kNoTimeout = std::chrono::hours(24 * 365);

std::string Version(const PullOptions& options) {
  return options.version.has_value() ? absl::StrCat(*options.version) : "latest";
}

// Of 64 random bits no two are alike, and none is 0.
uint64_t NewLife() {
  std::random_device random;
  uint64_t life = 0;
  while (life == 0) life = (uint64_t{random()} << 32) | random();
  return life;
}

v1::PullRequest MakeRequest(const PullOptions& options, uint64_t life) {
  v1::PullRequest request;
  request.set_model(options.model);
  if (options.version.has_value()) {
    request.mutable_version()->set_number(*options.version);
  } else {
    request.mutable_version()->set_latest_committed(true);
  }
  if (options.trainer_epoch.has_value()) request.mutable_version()->set_trainer_epoch(*options.trainer_epoch);
  request.set_worker(options.worker);
  request.set_life(options.life != 0 ? options.life : life);
  request.set_batches(true);
  if (options.installed.has_value()) request.set_installed_version(*options.installed);
  if (options.installed_epoch.has_value()) request.set_installed_epoch(*options.installed_epoch);
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

  absl::Status Begin(const v1::VersionSummary&, const std::vector<TensorPart>& tensors) override {
    slabs_ = Slabs(SlabPlan::Of(tensors));
    // What earlier versions left, and this one cannot use.
    pool_.TrimTo(slabs_.plan().capacity());
    tensors_.reserve(tensors.size());
    for (const TensorPart& part : tensors) tensors_.push_back({part, nullptr});
    return absl::OkStatus();
  }

  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override {
    PulledTensor& tensor = tensors_[index];
    absl::StatusOr<std::shared_ptr<Buffer>> data = slabs_.Get(index, [this](size_t size) { return pool_.Get(size); });
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
  Slabs slabs_;
  std::vector<PulledTensor>& tensors_;
};

}  // namespace

struct Subscriber::State {
  const ForkGuard guard;
  std::string address;
  Transport transport = Transport::kAuto;
  std::shared_ptr<grpc::Channel> channel;
  BufferPool pool{std::numeric_limits<int64_t>::max()};
  // Of a worker that shows its presence; others are told by their names.
  std::atomic<uint64_t> life{0};

  std::shared_ptr<ActiveCalls> calls = std::make_shared<ActiveCalls>();

  class ActiveCall;
  class PullLease;
  class Watch;
  class Presence;

  // Whether this process can map the service's memory: OK, or why not.
  absl::Status TryToShare() const;
};

// A call that Cancel reaches.
class Subscriber::State::ActiveCall {
 public:
  ActiveCall(State& state, const std::string& method, const google::protobuf::MessageLite& request,
             std::chrono::milliseconds timeout)
      : reader_(RawReader::Prepare(state.channel, method)), entry_(state.calls, [this] { reader_->Cancel(); }) {
    reader_->Begin(Serialize(request), timeout);
  }

  RawReader* operator->() { return reader_.get(); }

 private:
  const std::unique_ptr<RawReader> reader_;
  const ActiveCalls::Entry entry_;
};

// A pull's call, which goes on until the memory that was mapped is let go of.
class Subscriber::State::PullLease final : public Lease {
 public:
  PullLease(std::shared_ptr<State> state, const v1::PullRequest& request, std::chrono::milliseconds timeout)
      : state_(std::move(state)), call_(*state_, kPullMethod, request, timeout) {}
  // A lease that cannot be given back ends with the call: the service never uses that memory again. So it is with one
  // that was there at a fork, whose child may have the memory mapped for as long as it likes.
  ~PullLease() override {
    if (number_ == 0 || forks_ != ForksBegun()) return;
    v1::EndLeaseRequest request;
    request.set_lease(number_);
    v1::EndLeaseResponse response;
    grpc::ClientContext context;
    context.set_deadline(SteadyDeadline(kEndLeaseTimeout));
    (void)v1::PullService::NewStub(state_->channel)->EndLease(&context, request, &response);
  }

  ActiveCall& call() { return call_; }
  void set_number(uint64_t number) { number_ = number; }

 private:
  const uint64_t forks_ = ForksBegun();
  const std::shared_ptr<State> state_;
  ActiveCall call_;
  uint64_t number_ = 0;
};

absl::Status Subscriber::State::TryToShare() const {
  if (transport == Transport::kWire || (transport == Transport::kAuto && !IsLocal(address))) {
    return absl::UnavailableError("not asked for");
  }
  const std::unique_ptr<v1::InspectService::Stub> stub = v1::InspectService::NewStub(channel);
  const absl::StatusOr<v1::GetServerInfoResponse> info =
      CallUnary(*stub, &v1::InspectService::Stub::GetServerInfo, v1::GetServerInfoRequest(), kInfoTimeout,
                "asked for its memory", calls);
  if (!info.ok()) return info.status();
  if (!info->has_shared_memory()) return absl::UnavailableError("the service shares no memory");
  return MappedSegment::Open(info->shared_memory()).status();
}

Subscriber::Subscriber(std::shared_ptr<State> state) : state_(std::move(state)) {}
Subscriber::~Subscriber() = default;

absl::Status Subscriber::CheckNotForked() const {
  return state_->guard.Check(absl::StrCat("subscriber to ", state_->address));
}

absl::StatusOr<std::unique_ptr<Subscriber>> Subscriber::Connect(const ChannelOptions& options) {
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = refit::Connect(options);
  if (!channel.ok()) return channel.status();
  std::shared_ptr<State> state = MakeOwnedByProcess<State>();
  state->address = options.address;
  state->transport = options.transport;
  state->channel = *std::move(channel);
  return absl::WrapUnique(new Subscriber(std::move(state)));
}

// What a connection that breaks, or a service that ends, gives a stream.
bool IsCut(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable || status.code() == absl::StatusCode::kInternal ||
         status.code() == absl::StatusCode::kUnknown || status.code() == absl::StatusCode::kCancelled;
}

// The streams of one pull: the first, and those that resume it.
class Subscriber::PullRun {
 public:
  PullRun(std::shared_ptr<State> state, const PullOptions& options, TensorSink& sink)
      : state_(std::move(state)),
        options_(options),
        context_(absl::StrCat("pull of ", options.model, "/", Version(options), " from ", state_->address)),
        receiver_(options, context_, sink) {}

  absl::StatusOr<PullResult> Run() {
    const Clock::time_point begin = Clock::now();
    Clock::time_point last_gain = begin;
    while (true) {
      const uint64_t before = receiver_.result().bytes;
      const StreamEnd end = RunStream();
      if (end.status.ok()) break;
      if (GoesOnUnmapped(end)) continue;
      const bool gained = receiver_.result().bytes > before;
      if (gained) last_gain = Clock::now();
      if (cut_.ok() || gained) cut_ = end.status;
      if (!MayResume(end, gained, last_gain)) return Failure(end.status);
      ++resumed_;
    }
    PullResult result = receiver_.result();
    result.elapsed = Clock::now() - begin;
    result.waited = waited_;
    result.resumed = resumed_;
    result.not_mapped = not_mapped_;
    return result;
  }

 private:
  // `cut`: the stream did not come to its end, for no fault of what the service sent.
  struct StreamEnd {
    absl::Status status;
    bool cut = false;
  };

  StreamEnd RunStream() {
    const absl::Status shares = not_mapped_.empty() ? state_->TryToShare() : absl::UnavailableError(not_mapped_);
    if (!shares.ok() && state_->transport == Transport::kSharedMemory) {
      return {{absl::IsResourceExhausted(shares) ? shares.code() : absl::StatusCode::kUnavailable,
               absl::StrCat("service at ", state_->address, ": ", shares.message())}};
    }
    if (absl::IsResourceExhausted(shares)) not_mapped_ = std::string(shares.message());
    v1::PullRequest request = MakeRequest(options_, state_->life);
    request.set_shared_memory(shares.ok());
    if (const std::optional<PullReceiver::Place> place = receiver_.place()) {
      request.mutable_version()->set_number(place->version.number);
      request.mutable_version()->set_trainer_epoch(place->version.epoch);
      *request.mutable_resume() = place->cursor;
      request.set_skip_manifest(true);
    }
    const std::shared_ptr<State::PullLease> lease =
        MakeOwnedByProcess<State::PullLease>(state_, request, options_.idle_timeout);
    receiver_.BeginStream(lease);
    StreamEnd end = Receive(lease->call());
    if (end.status.ok()) lease->set_number(receiver_.lease());
    if (receiver_.could_not_map()) lease->call()->Cancel();  // what is mapped already stays, and nobody reads on
    return end;
  }

  StreamEnd Receive(State::ActiveCall& call) {
    while (receiver_.lease() == 0) {
      const Clock::time_point wait_begin = Clock::now();
      const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = call->Read(options_.idle_timeout);
      waited_ += Clock::now() - wait_begin;
      if (!message.ok()) return {Annotate(message.status(), context_)};
      if (!message->has_value()) return End(call);
      const absl::Status status = receiver_.OnMessage(**message);
      if (!status.ok()) return {status, receiver_.chunk_was_damaged()};
    }
    return {};
  }

  StreamEnd End(State::ActiveCall& call) {
    const absl::Status status = call->Finish(options_.idle_timeout);
    if (status.ok()) return {receiver_.OnEnd()};
    const bool cut = IsCut(status) && !receiver_.OnEnd().ok() && !state_->calls->cancelled().stopped();
    return {Annotate(status, context_), cut};
  }

  // What cannot be mapped comes over the connection, from where the stream is.
  bool GoesOnUnmapped(const StreamEnd& end) {
    if (!receiver_.could_not_map() || !not_mapped_.empty() || state_->transport != Transport::kAuto) return false;
    not_mapped_ = std::string(end.status.message());
    return true;
  }

  bool MayResume(const StreamEnd& end, bool gained, Clock::time_point last_gain) {
    if (gained) {
      backoff_.Reset();
      damaged_ = 0;
    }
    if (!end.cut || Clock::now() - last_gain >= options_.resume_within) return false;
    if (receiver_.chunk_was_damaged() && ++damaged_ >= kMostDamaged) return false;
    return backoff_.Wait(state_->calls->cancelled());
  }

  absl::string_view WithoutContext(const absl::Status& status) const {
    absl::string_view message = status.message();
    absl::ConsumePrefix(&message, absl::StrCat(context_, ": "));
    return message;
  }

  // Of a pull that was resumed in vain, what cut it matters at least as much.
  absl::Status Failure(const absl::Status& status) const {
    if (cut_ == status) return status;
    if (absl::IsDataLoss(cut_)) {
      return absl::DataLossError(
          absl::StrCat(cut_.message(), " (and when it was to come again: ", WithoutContext(status), ")"));
    }
    return {status.code(), absl::StrCat(status.message(), " (when it was resumed after: ", WithoutContext(cut_), ")")};
  }

  const std::shared_ptr<State> state_;
  const PullOptions& options_;
  const std::string context_;
  PullReceiver receiver_;
  Backoff backoff_{kFirstPause, kLongestPause};
  std::chrono::nanoseconds waited_{0};
  absl::Status cut_;        // the first since something came
  std::string not_mapped_;  // why; nothing is mapped any more then
  uint64_t resumed_ = 0;
  int damaged_ = 0;
};

absl::StatusOr<PullResult> Subscriber::Pull(const PullOptions& options, TensorSink& sink) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  return WithinMemory("a pull", [&] { return PullRun(state_, options, sink).Run(); });
}

absl::StatusOr<PulledVersion> Subscriber::Pull(const PullOptions& options) {
  PulledVersion version;
  MemorySink sink(state_->pool, version.tensors);
  absl::StatusOr<PullResult> result = Pull(options, sink);
  if (!result.ok()) return result.status();
  version.result = *std::move(result);
  return version;
}

class Subscriber::State::Watch final : public VersionWatch {
 public:
  Watch(std::shared_ptr<State> state, const v1::WatchVersionsRequest& request)
      : state_(std::move(state)),
        context_(absl::StrCat("watch of ", request.model(), " at ", state_->address)),
        call_(state_->guard.forked() ? nullptr
                                     : MakeOwnedByProcess<ActiveCall>(*state_, kWatchMethod, request, kStartTimeout)) {}

  absl::StatusOr<v1::VersionSummary> Next(std::chrono::milliseconds timeout) override {
    if (absl::Status status = state_->guard.Check(context_); !status.ok()) return status;
    const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = (*call_)->Read(timeout);
    if (!message.ok()) return Annotate(message.status(), context_);
    if (!message->has_value()) return Annotate(WhyEnded(), context_);
    v1::VersionEvent event;
    if (absl::Status status = Parse(**message, event); !status.ok()) {
      return absl::InternalError(absl::StrCat(context_, ": ", status.message()));
    }
    return std::move(*event.mutable_version());
  }

 private:
  absl::Status WhyEnded() {
    const absl::Status status = (*call_)->Finish(kStartTimeout);
    return status.ok() ? absl::UnavailableError("the service ended the watch") : status;
  }

  const std::shared_ptr<State> state_;
  const std::string context_;
  const OwnedByProcess<ActiveCall> call_;
};

class Subscriber::State::Presence final : public WorkerPresence {
 public:
  Presence(const std::shared_ptr<State>& state, const v1::WatchVersionsRequest& request)
      : call_(MakeOwnedByProcess<ActiveCall>(*state, kWatchMethod, request, kStartTimeout)) {}

  bool IsAlive() override {
    while ((*call_)->HasNews()) {
      const auto message = (*call_)->Read(std::chrono::milliseconds::zero());
      if (!message.ok() || !message->has_value()) return false;  // a service that sends versions is one all the same
    }
    return true;
  }

 private:
  const OwnedByProcess<ActiveCall> call_;
};

std::unique_ptr<VersionWatch> Subscriber::StartWatch(const WatchOptions& options) {
  v1::WatchVersionsRequest request;
  request.set_model(options.model);
  request.set_worker(options.worker);
  request.set_life(options.life != 0 ? options.life : state_->life.load());
  if (options.after.has_value()) request.set_after(*options.after);
  if (options.trainer_epoch.has_value()) request.set_trainer_epoch(*options.trainer_epoch);
  return std::make_unique<State::Watch>(state_, request);
}

std::unique_ptr<WorkerPresence> Subscriber::StartPresence(const std::string& model, const std::string& worker) {
  uint64_t none = 0;
  state_->life.compare_exchange_strong(none, NewLife());
  v1::WatchVersionsRequest request;
  request.set_model(model);
  request.set_worker(worker);
  request.set_life(state_->life);
  request.set_presence(true);
  return std::make_unique<State::Presence>(state_, request);
}

absl::Status Subscriber::Watch(const WatchOptions& options,
                               const std::function<bool(const v1::VersionSummary&)>& on_event,
                               std::chrono::milliseconds idle_timeout) {
  if (idle_timeout == std::chrono::milliseconds::zero()) idle_timeout = kNoTimeout;
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  const std::unique_ptr<VersionWatch> watch = StartWatch(options);
  while (true) {
    const absl::StatusOr<v1::VersionSummary> version = watch->Next(idle_timeout);
    if (!version.ok()) return version.status();
    if (!on_event(*version)) return absl::OkStatus();
  }
}

absl::StatusOr<bool> Subscriber::Report(v1::ReportWorkerRequest report) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  if (report.life() == 0) report.set_life(state_->life);
  const std::unique_ptr<v1::PullService::Stub> stub = v1::PullService::NewStub(state_->channel);
  const absl::StatusOr<v1::ReportWorkerResponse> response =
      CallUnary(*stub, &v1::PullService::Stub::ReportWorker, report, kReportTimeout,
                absl::StrCat("report of worker ", report.worker(), " to ", state_->address), state_->calls);
  if (!response.ok()) return response.status();
  return response->foreign();
}

void Subscriber::Cancel() {
  if (!state_->guard.forked()) state_->calls->Cancel();
}

}  // namespace refit

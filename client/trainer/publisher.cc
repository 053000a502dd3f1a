#include "refit/publisher.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "client/calls/connections.h"
#include "client/calls/stream_trial.h"
#include "client/calls/unary_call.h"
#include "client/trainer/striped_push.h"
#include "client/trainer/wire_push.h"
#include "common/net/version_summary.h"
#include "common/tensor/stream_shares.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "refit/v1/push.grpc.pb.h"

namespace refit {
namespace {

using Stub = v1::PushService::Stub;

constexpr std::chrono::seconds kUnaryTimeout{60};
constexpr std::chrono::seconds kAnswerMargin{10};
constexpr uint32_t kMostStreams = 64;

uint64_t BytesOf(const std::vector<TensorPart>& parts) {
  uint64_t bytes = 0;
  for (const TensorPart& part : parts) bytes += part.ByteSize();
  return bytes;
}

}  // namespace

struct Publisher::State {
  State(ServiceConnection connection, const ChannelOptions& options, uint32_t most_streams)
      : service(std::move(connection)),
        streams(most_streams),
        connections(std::make_shared<Connections>(options, service.channel, service.calls)),
        push(v1::PushService::NewStub(service.channel)),
        inspect(v1::InspectService::NewStub(service.channel)) {}

  // "abort of default/3 at host:port", for errors.
  std::string Context(absl::string_view what, const std::string& model, uint64_t version) const {
    return absl::StrCat(what, " ", model, "/", version, " at ", service.address);
  }

  const ForkGuard guard;
  const ServiceConnection service;
  const uint32_t streams;  // 0: found out
  const std::shared_ptr<Connections> connections;
  const std::shared_ptr<StreamTrial> trial = std::make_shared<StreamTrial>();  // of pushes that find out
  const std::unique_ptr<v1::PushService::Stub> push;
  const std::unique_ptr<v1::InspectService::Stub> inspect;
};

Publisher::Publisher(OwnedByProcess<State> state) : state_(std::move(state)) {}
Publisher::~Publisher() = default;

absl::Status Publisher::CheckNotForked() const {
  return state_->guard.Check(absl::StrCat("publisher to ", state_->service.address));
}

absl::StatusOr<std::unique_ptr<Publisher>> Publisher::Connect(const ChannelOptions& options, uint32_t streams) {
  if (streams > kMostStreams) {
    return absl::InvalidArgumentError(
        absl::StrCat(streams, " connections to ", options.address, "; expected at most ", kMostStreams));
  }
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = refit::Connect(options);
  if (!channel.ok()) return channel.status();
  ServiceConnection service{options.address, options.transport, *std::move(channel), std::make_shared<ActiveCalls>()};
  return absl::WrapUnique(new Publisher(MakeOwnedByProcess<State>(std::move(service), options, streams)));
}

absl::StatusOr<std::unique_ptr<VersionPush>> Publisher::Open(const PublishOptions& options,
                                                             std::vector<TensorSpec> native) {
  return OpenShards(options, WholeParts(std::move(native)));
}

absl::StatusOr<std::unique_ptr<VersionPush>> Publisher::OpenShards(const PublishOptions& options,
                                                                   std::vector<TensorPart> shards) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  const bool is_trial = state_->streams == 0 && !state_->trial->is_settled();
  const size_t most = state_->streams > 0 ? state_->streams : state_->trial->streams();
  if (most == 1 && !is_trial) return OpenWirePush(state_->service, options, std::move(shards));
  if (options.world > 1) {
    return absl::InvalidArgumentError(absl::StrCat(state_->Context("push of", options.model, options.version),
                                                   ": each of ", options.world,
                                                   " ranks is a connection already; connect with streams 1"));
  }
  const bool whole = absl::c_all_of(shards, [](const TensorPart& shard) { return shard.is_whole(); });
  const size_t streams = whole ? UsefulStreams(BytesOf(shards), most) : 1;
  if (streams == 1 && !is_trial) return OpenWirePush(state_->service, options, std::move(shards));
  return OpenStripedPush(state_->service, state_->connections, options, std::move(shards), streams,
                         is_trial ? state_->trial : nullptr);
}

absl::StatusOr<VersionSummary> Publisher::Abort(const std::string& model, uint64_t version, const std::string& reason) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  v1::AbortVersionRequest request;
  request.set_model(model);
  request.set_version(version);
  request.set_reason(reason);
  const absl::StatusOr<v1::AbortVersionResponse> response =
      CallUnary(*state_->push, &Stub::AbortVersion, request, kUnaryTimeout, state_->Context("abort of", model, version),
                state_->service.calls);
  if (!response.ok()) return response.status();
  return FromProto(response->summary());
}

absl::StatusOr<VersionSummary> Publisher::ReleaseInstalls(const std::string& model, uint64_t version) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  v1::ReleaseInstallsRequest request;
  request.set_model(model);
  request.set_version(version);
  const absl::StatusOr<v1::ReleaseInstallsResponse> response =
      CallUnary(*state_->push, &Stub::ReleaseInstalls, request, kUnaryTimeout,
                state_->Context("release of", model, version), state_->service.calls);
  if (!response.ok()) return response.status();
  return FromProto(response->summary());
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
  // The service answers at the timeout. The margin is for a service that does not.
  const absl::StatusOr<v1::AwaitWorkersResponse> response =
      CallUnary(*state_->push, &Stub::AwaitWorkers, request, await.timeout + kAnswerMargin,
                state_->Context("waiting for workers of", await.model, await.version), state_->service.calls);
  if (!response.ok()) return response.status();
  if (gone != nullptr) gone->assign(response->gone().begin(), response->gone().end());
  return response->workers();
}

absl::StatusOr<Publisher::LastRun> Publisher::AskLastRun(const std::string& model) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  v1::ListVersionsRequest request;
  request.set_model(model);
  const absl::StatusOr<v1::ListVersionsResponse> known = CallUnary(
      *state_->inspect, &v1::InspectService::Stub::ListVersions, request, kUnaryTimeout,
      absl::StrCat("asking for the versions of ", model, " at ", state_->service.address), state_->service.calls);
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
  v1::ListWorkersRequest request;
  request.set_model(model);
  const absl::StatusOr<v1::ListWorkersResponse> known = CallUnary(
      *state_->inspect, &v1::InspectService::Stub::ListWorkers, request, kUnaryTimeout,
      absl::StrCat("asking for the workers of ", model, " at ", state_->service.address), state_->service.calls);
  if (!known.ok()) return known.status();
  return static_cast<int>(absl::c_count_if(
      known->workers(), [](const v1::Worker& worker) { return worker.connected() && !worker.has_relay(); }));
}

void Publisher::Cancel() {
  if (!state_->guard.forked()) state_->service.calls->Cancel();
}

}  // namespace refit

#include "refit/inspector.h"

#include <grpcpp/client_context.h>

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "client/calls/active_calls.h"
#include "client/calls/unary_call.h"
#include "common/net/channel.h"
#include "refit/v1/inspect.grpc.pb.h"

namespace refit {

struct Inspector::State {
  using Stub = v1::InspectService::Stub;

  const ForkGuard guard;
  std::string address;
  std::chrono::milliseconds timeout;
  std::unique_ptr<Stub> stub;
  const std::shared_ptr<ActiveCalls> calls = std::make_shared<ActiveCalls>();

  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                const Request& request) {
    const std::string context = absl::StrCat("service at ", address);
    if (absl::Status status = guard.Check(absl::StrCat("connection to the ", context)); !status.ok()) return status;
    return CallUnary(*stub, method, request, timeout, context, calls);
  }
};

Inspector::Inspector(OwnedByProcess<State> state) : state_(std::move(state)) {}
Inspector::~Inspector() = default;

absl::StatusOr<std::unique_ptr<Inspector>> Inspector::Connect(const ChannelOptions& options,
                                                              std::chrono::milliseconds timeout) {
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = refit::Connect(options);
  if (!channel.ok()) return channel.status();
  auto state = MakeOwnedByProcess<State>();
  state->address = options.address;
  state->timeout = timeout;
  state->stub = v1::InspectService::NewStub(*channel);
  return absl::WrapUnique(new Inspector(std::move(state)));
}

absl::StatusOr<v1::GetServerInfoResponse> Inspector::ServerInfo() {
  return state_->Call(&State::Stub::GetServerInfo, v1::GetServerInfoRequest());
}

absl::StatusOr<v1::ListVersionsResponse> Inspector::Versions(const std::string& model) {
  v1::ListVersionsRequest request;
  request.set_model(model);
  return state_->Call(&State::Stub::ListVersions, request);
}

absl::StatusOr<v1::ListWorkersResponse> Inspector::Workers(const std::string& model) {
  v1::ListWorkersRequest request;
  request.set_model(model);
  return state_->Call(&State::Stub::ListWorkers, request);
}

absl::StatusOr<v1::DescribeVersionResponse> Inspector::DescribeVersion(const v1::DescribeVersionRequest& request) {
  return state_->Call(&State::Stub::DescribeVersion, request);
}

absl::StatusOr<v1::DescribeTensorResponse> Inspector::DescribeTensor(const v1::DescribeTensorRequest& request) {
  return state_->Call(&State::Stub::DescribeTensor, request);
}

void Inspector::Cancel() { state_->calls->Cancel(); }

}  // namespace refit

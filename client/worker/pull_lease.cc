#include "client/worker/pull_lease.h"

#include <grpcpp/client_context.h>

#include <utility>

#include "common/net/steady_deadline.h"
#include "refit/v1/pull.grpc.pb.h"

namespace refit {
namespace {

constexpr char kPullMethod[] = "/refit.v1.PullService/Pull";
constexpr std::chrono::milliseconds kEndLeaseTimeout{500};

}  // namespace

PullLease::PullLease(std::shared_ptr<SubscriberConnection> connection, std::shared_ptr<const Route> route,
                     const v1::PullRequest& request, std::chrono::milliseconds timeout)
    : connection_(std::move(connection)),
      route_(std::move(route)),
      stream_(*connection_, route_, kPullMethod, request, timeout) {}

PullLease::~PullLease() {
  if (number_ == 0 || forks_ != ForksBegun()) return;
  v1::EndLeaseRequest request;
  request.set_lease(number_);
  v1::EndLeaseResponse response;
  grpc::ClientContext context;
  context.set_deadline(SteadyDeadline(kEndLeaseTimeout));
  (void)v1::PullService::NewStub(route_->channel)->EndLease(&context, request, &response);
}

}  // namespace refit

#include "server/watch/health_service.h"

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/access/news_reactor.h"
#include "server/access/unary_call.h"

namespace refit {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

class HealthWatch final : public NewsReactor<HealthCheckResponse> {
 public:
  using GetStatus = std::function<HealthCheckResponse::ServingStatus()>;

  HealthWatch(EndTable& ends, Observers& observers, GetStatus status)
      : NewsReactor(ends, AtEnd::kSendNews), observers_(observers), status_(std::move(status)) {}

  void Start() {
    Begin();
    observer_ = observers_.Add([weak = weak_from_this()] {
      if (const auto self = weak.lock()) static_cast<HealthWatch&>(*self).Advance();
    });
    Advance();
  }

 private:
  bool TakeNews(HealthCheckResponse& response) override {
    const HealthCheckResponse::ServingStatus status = status_();
    if (sent_ == status) return false;
    response.set_status(status);
    sent_ = status;
    return true;
  }

  void StopListening() override { observers_.Remove(observer_); }

  Observers& observers_;
  const GetStatus status_;
  uint64_t observer_ = 0;
  std::optional<HealthCheckResponse::ServingStatus> sent_;
};

}  // namespace

HealthService::HealthService(std::set<std::string> services) : services_(std::move(services)) {}

void HealthService::StopServing() {
  serving_ = false;
  watches_.Tell();
  ends_.EndAll();
}

HealthCheckResponse::ServingStatus HealthService::StatusOf(const std::string& service) const {
  if (!service.empty() && services_.count(service) == 0) return HealthCheckResponse::SERVICE_UNKNOWN;
  return serving_ ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* call, const HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  response->set_status(StatusOf(request->service()));
  if (response->status() != HealthCheckResponse::SERVICE_UNKNOWN) return EndCall(call, absl::OkStatus());
  return EndCall(call, absl::NotFoundError(absl::StrCat("there is no service '", request->service(), "' here")));
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(grpc::CallbackServerContext* /*call*/,
                                                                    const HealthCheckRequest* request) {
  const auto watch = std::make_shared<HealthWatch>(ends_, watches_,
                                                   [this, service = request->service()] { return StatusOf(service); });
  watch->Start();
  return watch.get();
}

}  // namespace refit

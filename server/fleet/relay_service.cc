#include "server/fleet/relay_service.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "server/access/news_reactor.h"
#include "server/access/refused_call.h"
#include "server/access/unary_call.h"
#include "server/fleet/relays_below.h"

namespace refit {
namespace {

// Sends the services above a relay, and again when they change.
class AttendReactor final : public NewsReactor<v1::Ancestry> {
 public:
  AttendReactor(RelayContext& context, PeerStreams::Stream stream, std::unique_ptr<RelaysBelow::Attendance> attendance)
      : NewsReactor(context.attendances),
        ancestry_(context.ancestry),
        stream_(std::move(stream)),
        attendance_(std::move(attendance)) {}

  void Start() {
    Begin();
    observer_ = ancestry_.Observe([weak = weak_from_this()] {
      if (const auto self = weak.lock()) static_cast<AttendReactor&>(*self).Changed();
    });
    Advance();
  }

 private:
  void Changed() {
    changed_ = true;
    Advance();
  }

  bool TakeNews(v1::Ancestry& ancestry) override {
    if (!changed_.exchange(false)) return false;
    ancestry = ancestry_.Get();
    return true;
  }

  void StopListening() override {
    ancestry_.StopObserving(observer_);
    attendance_.reset();
  }

  ServiceAncestry& ancestry_;
  const PeerStreams::Stream stream_;
  std::unique_ptr<RelaysBelow::Attendance> attendance_;  // kept to the end
  std::atomic<uint64_t> observer_ = 0;
  std::atomic<bool> changed_ = true;
};

}  // namespace

grpc::ServerWriteReactor<v1::Ancestry>* RelayService::Attend(grpc::CallbackServerContext* call,
                                                             const v1::AttendRequest* request) {
  using Refused = RefusedCall<grpc::ServerWriteReactor<v1::Ancestry>>;
  if (absl::Status status = context_.admission.Authorize(*call, Role::kRelay); !status.ok())
    return Refused::Start(status);
  absl::StatusOr<PeerStreams::Stream> stream = context_.admission.peer_streams.Enter(call->peer());
  context_.admission.counters.limits.Add(stream.status());
  if (!stream.ok()) return Refused::Start(stream.status());
  absl::StatusOr<std::unique_ptr<RelaysBelow::Attendance>> attendance = context_.workers.relays().Attend(*request);
  if (!attendance.ok()) return Refused::Start(attendance.status());
  const auto reactor = std::make_shared<AttendReactor>(context_, *std::move(stream), *std::move(attendance));
  reactor->Start();
  return reactor.get();
}

grpc::ServerUnaryReactor* RelayService::ReportBelow(grpc::CallbackServerContext* call,
                                                    const v1::ReportBelowRequest* request,
                                                    v1::ReportBelowResponse* /*response*/) {
  return AnswerCall(context_.admission, call, Role::kRelay, [&] { return context_.workers.relays().Report(*request); });
}

}  // namespace refit

// A service that shuts down: calls that cannot end by themselves are told, and do not hold it up.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "refit/publisher.h"
#include "refit/subscriber.h"
#include "tests/support/fleet.h"

namespace refit {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using std::chrono::seconds;
using std::chrono::steady_clock;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

// A watch of the health of one service, in a thread.
class HealthWatch {
 public:
  explicit HealthWatch(const std::string& address, const std::string& service = "")
      : channel_(Connect(WireTo(address))), thread_([this, service] { Run(service); }) {}
  ~HealthWatch() { Wait(); }

  void Wait() {
    if (thread_.joinable()) thread_.join();
  }

  absl::Notification answered;
  std::vector<HealthCheckResponse::ServingStatus> seen;
  grpc::Status status;

 private:
  void Run(const std::string& service) {
    grpc::ClientContext context;
    HealthCheckRequest request;
    request.set_service(service);
    const auto reader = Health::NewStub(*channel_)->Watch(&context, request);
    HealthCheckResponse response;
    while (reader->Read(&response)) {
      seen.push_back(response.status());
      if (!answered.HasBeenNotified()) answered.Notify();
    }
    status = reader->Finish();
  }

  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel_;
  std::thread thread_;
};

TEST(Shutdown, IsNotHeldUpByCallsWithoutAnEnd) {
  const auto server = StartService({.health = "127.0.0.1:0"});
  HealthWatch all(server->address());
  HealthWatch one(server->address(), "refit.v1.PullService");
  HealthWatch unknown(server->address(), "nobody");
  HealthWatch plain(server->health_address());
  for (HealthWatch* watch : {&all, &one, &unknown, &plain}) {
    ASSERT_TRUE(watch->answered.WaitForNotificationWithTimeout(kPatience));
  }
  auto publisher = Publisher::Connect(WireTo(server->address()));
  ASSERT_OK(publisher);
  absl::Status waited;
  std::thread trainer([&] { waited = (*publisher)->AwaitWorkers({.version = 1, .timeout = seconds(60)}).status(); });

  const auto begin = steady_clock::now();
  server->Shutdown(seconds(60));
  trainer.join();
  for (HealthWatch* watch : {&all, &one, &unknown, &plain}) watch->Wait();
  EXPECT_LT(steady_clock::now() - begin, seconds(30));

  EXPECT_THAT(waited, StatusIs(absl::StatusCode::kUnavailable));
  for (const HealthWatch* watch : {&all, &one, &plain}) {
    EXPECT_THAT(watch->seen, ElementsAre(HealthCheckResponse::SERVING, HealthCheckResponse::NOT_SERVING));
  }
  EXPECT_THAT(unknown.seen, ElementsAre(HealthCheckResponse::SERVICE_UNKNOWN));
  for (const HealthWatch* watch : {&all, &one, &unknown, &plain}) {
    EXPECT_EQ(watch->status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_THAT(watch->status.error_message(), HasSubstr("shutting down"));
  }
}

TEST(Shutdown, TakesNoOtherPull) {
  const TestModel model;
  const auto server = StartService();
  auto publisher = Publisher::Connect(WireTo(server->address()));
  ASSERT_OK(publisher);
  ASSERT_OK(model.Push(**publisher, 1));
  auto subscriber = Subscriber::Connect(WireTo(server->address()));
  ASSERT_OK(subscriber);
  server->Shutdown(seconds(60));
  PullOptions options;
  options.resume_within = seconds(0);
  EXPECT_THAT((*subscriber)->Pull(options), StatusIs(absl::StatusCode::kUnavailable));
}

TEST(Health, IsOfAServiceOrOfAll) {
  const auto server = StartService();
  const auto channel = Connect(WireTo(server->address()));
  ASSERT_OK(channel);
  const auto stub = Health::NewStub(*channel);
  for (const char* service : {"", "refit.v1.PushService", "refit.v1.PullService", "refit.v1.RelayService",
                              "refit.v1.InspectService", "nobody"}) {
    grpc::ClientContext context;
    HealthCheckRequest request;
    request.set_service(service);
    HealthCheckResponse response;
    const grpc::Status status = stub->Check(&context, request, &response);
    if (request.service() == "nobody") {
      EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
      EXPECT_THAT(status.error_message(), HasSubstr("'nobody'"));
    } else {
      EXPECT_TRUE(status.ok()) << status.error_message();
      EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
    }
  }
}

}  // namespace
}  // namespace refit

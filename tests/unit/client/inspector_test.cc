#include "refit/inspector.h"

#include <gtest/gtest.h>

#include <thread>

#include "refit/v1/inspect.grpc.pb.h"
#include "tests/unit/net/loopback_server.h"

namespace refit {
namespace {

using std::chrono::milliseconds;

class ScriptedInspect final : public v1::InspectService::Service {
 public:
  grpc::Status GetServerInfo(grpc::ServerContext* context, const v1::GetServerInfoRequest*,
                             v1::GetServerInfoResponse* response) override {
    while (hangs && !context->IsCancelled()) std::this_thread::yield();
    response->set_software_version("1.2.3");
    return grpc::Status::OK;
  }
  grpc::Status ListVersions(grpc::ServerContext*, const v1::ListVersionsRequest* request,
                            v1::ListVersionsResponse* response) override {
    response->add_versions()->set_model(request->model());
    return grpc::Status::OK;
  }
  grpc::Status ListWorkers(grpc::ServerContext*, const v1::ListWorkersRequest* request,
                           v1::ListWorkersResponse* response) override {
    response->add_workers()->set_model(request->model());
    return grpc::Status::OK;
  }
  grpc::Status DescribeVersion(grpc::ServerContext*, const v1::DescribeVersionRequest* request,
                               v1::DescribeVersionResponse* response) override {
    response->set_next_page_token(request->filter());
    return grpc::Status::OK;
  }
  grpc::Status DescribeTensor(grpc::ServerContext*, const v1::DescribeTensorRequest* request,
                              v1::DescribeTensorResponse*) override {
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "no tensor " + request->name());
  }

  bool hangs = false;
};

TEST(Inspector, PassesRequestsAndAnswers) {
  ScriptedInspect service;
  const LoopbackServer server({&service});
  const auto inspector = Inspector::Connect(server.channel_options());
  ASSERT_TRUE(inspector.ok()) << inspector.status();
  EXPECT_EQ((*inspector)->ServerInfo()->software_version(), "1.2.3");
  EXPECT_EQ((*inspector)->Versions("m")->versions(0).model(), "m");
  EXPECT_EQ((*inspector)->Workers("w")->workers(0).model(), "w");
  v1::DescribeVersionRequest version;
  version.set_filter("rx");
  EXPECT_EQ((*inspector)->DescribeVersion(version)->next_page_token(), "rx");
}

TEST(Inspector, ErrorsNameTheService) {
  ScriptedInspect service;
  const LoopbackServer server({&service});
  const auto inspector = Inspector::Connect(server.channel_options());
  ASSERT_TRUE(inspector.ok()) << inspector.status();
  v1::DescribeTensorRequest request;
  request.set_name("x");
  EXPECT_EQ((*inspector)->DescribeTensor(request).status(),
            absl::NotFoundError("service at " + server.address() + ": no tensor x"));
}

TEST(Inspector, EveryCallEnds) {
  ScriptedInspect service;
  service.hangs = true;
  const LoopbackServer server({&service});
  const auto inspector = Inspector::Connect(server.channel_options(), milliseconds(100));
  ASSERT_TRUE(inspector.ok()) << inspector.status();
  EXPECT_EQ((*inspector)->ServerInfo().status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(Inspector, NeedsAService) { EXPECT_FALSE(Inspector::Connect({}).ok()); }

}  // namespace
}  // namespace refit

#include "common/net/channel.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "refit/tuning.h"
#include "refit/v1/pull.grpc.pb.h"
#include "tests/unit/net/loopback_server.h"

namespace refit {
namespace {

using std::chrono::milliseconds;

// Answers GetManifest with a message as large as the request's filter asks for, and remembers who called.
class ManifestService final : public v1::PullService::Service {
 public:
  grpc::Status GetManifest(grpc::ServerContext* context, const v1::GetManifestRequest* request,
                           grpc::ServerWriter<v1::ManifestPart>* writer) override {
    const auto agent = context->client_metadata().find("user-agent");
    if (agent != context->client_metadata().end()) user_agent = {agent->second.data(), agent->second.size()};
    v1::ManifestPart part;
    part.mutable_summary()->set_model(std::string(std::stoul(request->filter()), 'm'));
    writer->Write(part);
    return grpc::Status::OK;
  }
  std::string user_agent;
};

grpc::Status GetManifest(const std::shared_ptr<grpc::Channel>& channel, size_t answer_bytes, size_t request_bytes = 0) {
  grpc::ClientContext context;
  v1::GetManifestRequest request;
  request.set_filter(std::to_string(answer_bytes));
  request.set_model(std::string(request_bytes, 'm'));
  const auto reader = v1::PullService::NewStub(channel)->GetManifest(&context, request);
  v1::ManifestPart part;
  while (reader->Read(&part)) continue;
  return reader->Finish();
}

TEST(Channel, CarriesMessagesUpToTheLimitAndNoLarger) {
  ManifestService service;
  const LoopbackServer server({&service});
  const auto channel = Connect(server.channel_options());
  ASSERT_TRUE(channel.ok()) << channel.status();
  EXPECT_TRUE(GetManifest(*channel, kMaxMessageBytes - 100).ok());
  EXPECT_TRUE(GetManifest(*channel, 1, kMaxMessageBytes - 100).ok());
  EXPECT_EQ(GetManifest(*channel, kMaxMessageBytes).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(GetManifest(*channel, 1, kMaxMessageBytes).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(service.user_agent.rfind("refit/", 0), 0u) << service.user_agent;
}

TEST(Channel, RefusesAnEmptyAddress) { EXPECT_EQ(Connect({}).status().code(), absl::StatusCode::kInvalidArgument); }

TEST(Channel, NamesTheAddressThatDoesNotAnswer) {
  std::string address;
  {
    ManifestService service;
    address = LoopbackServer({&service}).address();  // nobody listens there any more
  }
  for (const std::string& unreachable :
       {address, std::string("unix:/nonexistent/socket"), std::string("no.such.host.invalid:1")}) {
    const auto start = std::chrono::steady_clock::now();
    const auto channel = Connect({.address = unreachable, .connect_timeout = milliseconds(300)});
    EXPECT_EQ(channel.status().code(), absl::StatusCode::kUnavailable) << unreachable;
    EXPECT_NE(channel.status().message().find(unreachable), std::string::npos) << channel.status();
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  }
}

TEST(Channel, TwoServersDoNotShareAPort) {
  ManifestService service;
  const LoopbackServer server({&service});
  grpc::ServerBuilder builder;
  ConfigureServer(builder, kMaxMessageBytes);
  ManifestService other;
  builder.RegisterService(&other);
  builder.AddListeningPort(server.address(), grpc::InsecureServerCredentials());
  EXPECT_EQ(builder.BuildAndStart(), nullptr);
}

TEST(Channel, IgnoresProxies) {
  ManifestService service;
  const LoopbackServer server({&service});
  ::setenv("http_proxy", "http://127.0.0.1:1", 1);
  const auto channel = Connect(server.channel_options());
  ::unsetenv("http_proxy");
  EXPECT_TRUE(channel.ok()) << channel.status();
}

TEST(Allocator, TuningLeavesAWorkingHeap) {
  TuneForBulkData();
  EXPECT_EQ(std::string(100 << 20, 'x').back(), 'x');
}

}  // namespace
}  // namespace refit

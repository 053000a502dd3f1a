// Calls that watch versions: what becomes of them when their worker leaves.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/net/channel.h"
#include "refit/server.h"
#include "refit/v1/pull.grpc.pb.h"
#include "server/push/version_builder.h"
#include "tests/support/eventually.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

constexpr uint64_t kVersions = 16;  // so that there is always an event to send
constexpr int kRounds = 1000;
constexpr char kModel[] = "m";

absl::Status Commit(RefitServer& server, uint64_t version) {
  PublishOptions options;
  options.model = kModel;
  options.version = version;
  options.adapter = "identity";
  auto push = server.OpenVersion(options, {{"w", DType::kU8, {16}}});
  if (!push.ok()) return push.status();
  const std::vector<std::byte> bytes(16);
  if (absl::Status status = (*push)->Append(0, bytes); !status.ok()) return status;
  return (*push)->Commit().status();
}

TEST(Watch, IsLetGoWhenItIsCutWithAnEventOnItsWay) {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.store.retain_versions = kVersions;
  options.limits.max_streams_per_peer = 1;
  auto server = RefitServer::Start(options);
  ASSERT_OK(server);
  for (uint64_t version = 1; version <= kVersions; ++version) ASSERT_OK(Commit(**server, version));

  ChannelOptions channel_options;
  channel_options.address = (*server)->address();
  auto channel = Connect(channel_options);
  ASSERT_OK(channel);
  const auto stub = v1::PullService::NewStub(*channel);
  v1::WatchVersionsRequest request;
  request.set_model(kModel);
  const auto watch_and_leave = [&] {
    grpc::ClientContext context;
    const auto reader = stub->WatchVersions(&context, request);
    v1::VersionEvent event;
    const bool served = reader->Read(&event);
    context.TryCancel();
    (void)reader->Finish();
    return served;
  };
  // One stream a peer: the next is served once the one before is no more.
  for (int round = 0; round < kRounds; ++round) ASSERT_TRUE(Eventually(watch_and_leave, std::chrono::seconds(10)));
}

}  // namespace
}  // namespace refit

// Trainer, service and worker that do not see each other in /proc share memory over a Unix socket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/net/channel.h"
#include "common/net/descriptor_client.h"
#include "common/net/shared_segment.h"
#include "refit/server.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "refit/v1/pull.grpc.pb.h"
#include "tests/integration/mapped_model.h"
#include "tests/integration/service_process.h"
#include "tests/integration/subprocess.h"
#include "tests/support/eventually.h"
#include "tests/support/push.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Words = std::vector<std::string>;

// As a container that shares only a volume.
const Words kOtherNamespace = {"unshare", "--pid", "--fork", "--mount-proc"};
const Words kOtherUser = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"};
constexpr char kWorker[] = "worker-0123456789abcdef";
constexpr char kViewer[] = "viewer-0123456789abcdef";
constexpr char kTrainer[] = "trainer-0123456789abcdef";

class PassedDescriptors : public ::testing::Test {
 protected:
  PassedDescriptors() { chmod(folder_.Path("").c_str(), 0755); }

  void SetUp() override {
    if (std::system("unshare --pid --fork --mount-proc true 2>/dev/null") != 0) {
      GTEST_SKIP() << "no PID namespace can be made here (not root?)";
    }
  }

  void Start(Words flags = {}) {
    flags.insert(flags.begin(), {"--listen", socket_});
    service_ = std::make_unique<ServiceProcess>(flags);
    ASSERT_NE(service_->port(), 0) << service_->Err();
  }

  // In another namespace, unless something else is to start it.
  static Outcome Peer(const Words& arguments, const Words& by = kOtherNamespace) {
    Subprocess::Surroundings surroundings;
    surroundings.by = by;
    return Subprocess::Start("mapped-peer", arguments, surroundings)->Wait();
  }

  absl::Status Push(uint64_t version) {
    return PushIdentity(service_->Channel(), version, MappedModel(), [&](size_t i) { return MappedValues(i, version); })
        .status();
  }

  TemporaryFolder folder_;
  const std::string socket_ = absl::StrCat("unix:", folder_.Path("socket"));
  std::unique_ptr<ServiceProcess> service_;
};

TEST_F(PassedDescriptors, AWorkerInAnotherNamespaceMapsMemory) {
  Start();
  ASSERT_OK(Push(1));
  for (const char* transport : {"auto", "shared"}) {
    const Outcome worker = Peer({"pull", socket_, transport, "1"});
    EXPECT_EQ(worker.out, absl::StrCat(MappedDigests(1), " mapped=1 more=0 not_mapped=\n")) << worker.err;
  }
}

TEST_F(PassedDescriptors, ATrainerInAnotherNamespaceSharesItsMemory) {
  Start();
  const Outcome trainer = Peer({"push", socket_, "shared", "3"});
  ASSERT_EQ(trainer.code, 0) << trainer.out << trainer.err;
  const Outcome worker = Peer({"pull", socket_, "shared", "1"});
  EXPECT_THAT(worker.out, StartsWith(absl::StrCat(MappedDigests(3), " mapped=1"))) << worker.err;
}

TEST_F(PassedDescriptors, WhatWasNotAskedForIsNotDone) {
  Start();
  ASSERT_OK(Push(1));
  const Outcome wire = Peer({"pull", socket_, "wire", "1"});
  EXPECT_THAT(wire.out, StartsWith(absl::StrCat(MappedDigests(1), " mapped=0"))) << wire.err;
  // Over TCP nobody knows a socket.
  const Outcome tcp = Peer({"pull", service_->address(), "auto", "1"});
  EXPECT_THAT(tcp.out, StartsWith(absl::StrCat(MappedDigests(1), " mapped=0"))) << tcp.err;
  const Outcome forced = Peer({"pull", service_->address(), "shared", "1"});
  EXPECT_EQ(forced.code, 1);
  EXPECT_THAT(forced.out, HasSubstr("/proc/"));
}

TEST_F(PassedDescriptors, WithoutSharedMemoryThereIsNoSocketForIt) {
  Start({"--no-shared-memory"});
  EXPECT_THAT(folder_.Names(), ElementsAre("socket"));
  ASSERT_OK(Push(1));
  const Outcome worker = Peer({"pull", socket_, "auto", "1"});
  EXPECT_THAT(worker.out, StartsWith(absl::StrCat(MappedDigests(1), " mapped=0"))) << worker.err;
}

TEST_F(PassedDescriptors, AnotherUserMapsMemoryIfTheSocketIsOpenToIt) {
  Start({"--socket-mode", "666"});
  ASSERT_OK(Push(1));
  const Outcome worker = Peer({"pull", socket_, "shared", "1"}, kOtherUser);
  EXPECT_EQ(worker.out, absl::StrCat(MappedDigests(1), " mapped=1 more=0 not_mapped=\n")) << worker.err;
  const Outcome trainer = Peer({"push", socket_, "shared", "2"}, kOtherUser);
  EXPECT_EQ(trainer.code, 0) << trainer.out << trainer.err;
}

TEST_F(PassedDescriptors, AnotherUserGetsNothingFromASocketThatIsClosedToIt) {
  Start({"--socket-mode", "600"});
  ASSERT_OK(Push(1));
  const Outcome worker = Peer({"pull", socket_, "auto", "1"}, kOtherUser);
  EXPECT_EQ(worker.code, 1);
  EXPECT_THAT(worker.out, StartsWith("UNAVAILABLE"));
}

TEST_F(PassedDescriptors, DescriptorsOfWorkerAndServiceStayAsManyAsTheyWere) {
  Start();
  ASSERT_OK(Push(1));
  ASSERT_EQ(Peer({"pull", socket_, "shared", "1"}).code, 0);
  const uint64_t before = service_->OpenDescriptors();
  const Outcome worker = Peer({"pull", socket_, "shared", "200"});
  EXPECT_EQ(worker.out, absl::StrCat(MappedDigests(1), " mapped=1 more=0 not_mapped=\n")) << worker.err;
  for (uint64_t version = 2; version <= 20; ++version) {
    ASSERT_EQ(Peer({"push", socket_, "shared", absl::StrCat(version)}).code, 0);
  }
  EXPECT_LE(service_->OpenDescriptors(), before + 8);  // of the versions that are kept
}

TEST_F(PassedDescriptors, AServiceThatLivesKeepsItsSocketsAndOneThatWasKilledLeavesThem) {
  Start();
  ASSERT_OK(Push(1));
  const Outcome second = Subprocess::Start("refit-server", {"--listen", socket_})->Wait();
  EXPECT_EQ(second.code, 1);
  EXPECT_THAT(second.err, AllOf(HasSubstr(folder_.Path("socket")), HasSubstr("a running process listens there")));
  EXPECT_THAT(Peer({"pull", socket_, "shared", "1"}).out, HasSubstr("mapped=1"));
  service_->Kill();
  EXPECT_THAT(folder_.Names(), ElementsAre("socket", "socket.fds"));
  Start();
  ASSERT_OK(Push(1));
  EXPECT_THAT(Peer({"pull", socket_, "shared", "1"}).out, HasSubstr("mapped=1"));
  EXPECT_EQ(service_->Terminate().code, 0);
  EXPECT_TRUE(folder_.Names().empty());
}

TEST_F(PassedDescriptors, NothingElseAtTheSocketsPathIsTouched) {
  std::ofstream(folder_.Path("socket.fds")) << "weights";
  const Outcome service = Subprocess::Start("refit-server", {"--listen", socket_})->Wait();
  EXPECT_EQ(service.code, 1);
  EXPECT_THAT(service.err, AllOf(HasSubstr("socket.fds"), HasSubstr("no socket is there")));
  EXPECT_EQ(ReadFile(folder_.Path("socket.fds")), "weights");
  EXPECT_THAT(folder_.Names(), ElementsAre("socket.fds"));
}

TEST_F(PassedDescriptors, APathThatLeavesNoRoomIsNamed) {
  const std::string path = folder_.Path(std::string(104 - folder_.Path("").size(), 'p'));
  const Outcome service = Subprocess::Start("refit-server", {"--listen", "unix:" + path})->Wait();
  EXPECT_EQ(service.code, 1);
  EXPECT_THAT(service.err,
              AllOf(HasSubstr("has 104 bytes"), HasSubstr("at most 103"), HasSubstr("--no-shared-memory")));
}

// Calls of a worker that says what it likes.
class Access : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(folder_.Path("tokens")) << "trainer " << kTrainer << "\nworker " << kWorker << "\nviewer " << kViewer;
    chmod(folder_.Path("tokens").c_str(), 0600);
    ServerOptions options;
    options.listen = absl::StrCat("unix:", folder_.Path("socket"));
    options.authorization.tokens = folder_.Path("tokens");
    auto server = RefitServer::Start(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
    const auto pushed = PushIdentity(With(kTrainer), 1, MappedModel(), [](size_t i) { return MappedValues(i, 1); });
    ASSERT_OK(pushed);
  }

  ChannelOptions With(const std::string& token) {
    std::ofstream(folder_.Path(token)) << token;
    chmod(folder_.Path(token).c_str(), 0600);
    ChannelOptions channel;
    channel.address = server_->address();
    channel.security.token_file = folder_.Path(token);
    return channel;
  }

  // A pull that the test reads message by message.
  struct RawPull {
    explicit RawPull(const ChannelOptions& options)
        : channel(*Connect(options)), stub(v1::PullService::NewStub(channel)) {
      v1::PullRequest request;
      request.set_model("default");
      request.set_shared_memory(true);
      stream = stub->Pull(&context, request);
    }
    // Of the first chunk; nothing if none comes.
    v1::SharedSegment Segment() {
      v1::PullResponse response;
      while (stream->Read(&response)) {
        if (response.has_shared_chunk()) return response.shared_chunk().segment();
      }
      return {};
    }
    grpc::ClientContext context;
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<v1::PullService::Stub> stub;
    std::unique_ptr<grpc::ClientReader<v1::PullResponse>> stream;
  };

  TemporaryFolder folder_;
  std::unique_ptr<RefitServer> server_;
};

TEST_F(Access, WhoMayNotPullLearnsNoKeyOfAnyWeights) {
  RawPull pull(With(kViewer));
  EXPECT_TRUE(pull.Segment().key().empty());
  EXPECT_EQ(pull.stream->Finish().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  // What a viewer learns leads to a sample without content.
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(v1::InspectService::NewStub(pull.channel)->GetServerInfo(&context, {}, &info).ok());
  const auto sample = DescriptorClient(server_->address()).Take(info.shared_memory().key());
  ASSERT_OK(sample);
  auto mapped = MappedSegment::OfDescriptor(*sample, info.shared_memory());
  ASSERT_OK(mapped);
  for (const std::byte byte : (*mapped)->span()) ASSERT_EQ(byte, std::byte{0});
}

TEST_F(Access, AKeyLeadsToMemoryAsLongAsItsPull) {
  const DescriptorClient descriptors(server_->address());
  RawPull pull(With(kWorker));
  const v1::SharedSegment segment = pull.Segment();
  ASSERT_EQ(segment.key().size(), 16U);
  RawPull other(With(kWorker));
  EXPECT_NE(other.Segment().key(), segment.key()) << "each pull has keys of its own";
  EXPECT_OK(descriptors.Take(segment.key()));
  pull.context.TryCancel();
  (void)pull.Segment();
  (void)pull.stream->Finish();
  EXPECT_TRUE(Eventually([&] { return !descriptors.Take(segment.key()).ok(); }));
}

}  // namespace
}  // namespace refit

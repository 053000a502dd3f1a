// Trainer, service and worker on one host: bytes go through memory, and nobody sees them change.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/net/channel.h"
#include "common/net/shared_segment.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/server.h"
#include "refit/subscriber.h"
#include "refit/v1/push.grpc.pb.h"
#include "tests/support/eventually.h"
#include "tests/support/push.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

constexpr int64_t kLarge = 5'000'000;  // of bytes: some chunks, the last one cut

const std::vector<TensorSpec> kSpecs = {
    {"large", DType::kU8, {kLarge}}, {"small", DType::kF32, {3}}, {"middle", DType::kBF16, {300, 300}}};

Bytes Values(const TensorSpec& spec, uint64_t version) {
  Bytes bytes(spec.ByteSize());
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>((i * 2654435761U >> 9) + version * 7 + spec.name.size());
  }
  return bytes;
}

class SharedMemory : public ::testing::Test {
 protected:
  void Start(bool shared_memory = true) {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.store.retain_versions = 1;
    options.store.shared_memory = shared_memory;
    auto server = RefitServer::Start(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
  }

  ChannelOptions Channel(Transport transport) const {
    ChannelOptions options;
    options.address = server_->address();
    options.transport = transport;
    return options;
  }

  absl::Status Push(uint64_t version, Transport transport = Transport::kSharedMemory) {
    return PushIdentity(Channel(transport), version, kSpecs, [&](size_t i) { return Values(kSpecs[i], version); })
        .status();
  }

  std::unique_ptr<Subscriber> Subscribe(Transport transport = Transport::kSharedMemory) {
    auto subscriber = Subscriber::Connect(Channel(transport));
    EXPECT_OK(subscriber);
    return *std::move(subscriber);
  }

  static void ExpectIs(const PulledVersion& pulled, uint64_t version) {
    ASSERT_EQ(pulled.tensors.size(), kSpecs.size());
    for (size_t i = 0; i < kSpecs.size(); ++i) ExpectTensorIs(pulled, i, version);
  }

  static void ExpectTensorIs(const PulledVersion& pulled, size_t i, uint64_t version) {
    const Bytes expected = Values(kSpecs[i], version);
    ASSERT_EQ(pulled.tensors[i].data->size(), expected.size());
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), pulled.tensors[i].data->data())) << kSpecs[i].name;
  }

  std::unique_ptr<RefitServer> server_;
};

TEST_F(SharedMemory, GivesWhatTheWireGives) {
  Start();
  ASSERT_OK(Push(1, Transport::kWire));
  for (const Transport pull : {Transport::kWire, Transport::kSharedMemory, Transport::kAuto}) {
    auto pulled = Subscribe(pull)->Pull({});
    ASSERT_OK(pulled);
    ExpectIs(*pulled, 1);
  }
  ASSERT_OK(Push(2));
  auto pulled = Subscribe(Transport::kWire)->Pull({});
  ASSERT_OK(pulled);
  ExpectIs(*pulled, 2);
}

TEST_F(SharedMemory, WhatAWorkerHoldsStaysWhileVersionsComeAndGo) {
  Start();
  ASSERT_OK(Push(1));
  const auto subscriber = Subscribe();
  auto first = subscriber->Pull({});
  ASSERT_OK(first);
  for (uint64_t version = 2; version <= 5; ++version) {
    ASSERT_OK(Push(version));
    auto next = subscriber->Pull({});
    ASSERT_OK(next);
    ExpectIs(*next, version);
  }
  ExpectIs(*first, 1);
}

TEST_F(SharedMemory, OutlivesTheSubscriber) {
  Start();
  ASSERT_OK(Push(1));
  auto pulled = Subscribe()->Pull({});
  ASSERT_OK(pulled);
  ASSERT_OK(Push(2));
  ExpectIs(*pulled, 1);
}

TEST_F(SharedMemory, IsNotUsedAgainAfterAWorkerThatGaveNothingBack) {
  Start();
  ASSERT_OK(Push(1));
  const auto subscriber = Subscribe();
  auto pulled = subscriber->Pull({});
  ASSERT_OK(pulled);
  subscriber->Cancel();  // as if the connection broke, while the memory is still mapped
  for (uint64_t version = 2; version <= 6; ++version) ASSERT_OK(Push(version));
  ExpectIs(*pulled, 1);
}

TEST_F(SharedMemory, IsUsedAgainOnceItWasGivenBack) {
  Start();
  for (uint64_t version = 1; version <= 3; ++version) {
    ASSERT_OK(Push(version));
    ASSERT_OK(Subscribe()->Pull({}));
  }
  auto inspector = Inspector::Connect(Channel(Transport::kAuto));
  ASSERT_OK(inspector);
  auto info = (*inspector)->ServerInfo();
  ASSERT_OK(info);
  EXPECT_EQ(info->active_pulls(), 0U);
  EXPECT_GT(info->memory_pooled_bytes(), static_cast<uint64_t>(kLarge));
}

// Some tensors of one version, others of another, in any order: each version's memory comes back with its last.
TEST_F(SharedMemory, IsGivenBackInAnyOrder) {
  Start();
  ASSERT_OK(Push(1));
  const auto subscriber = Subscribe();
  auto first = subscriber->Pull({});
  ASSERT_OK(first);
  ASSERT_OK(Push(2));
  auto second = subscriber->Pull({});
  ASSERT_OK(second);
  first->tensors[0].data.reset();  // the slab lives on, with the tensor in the middle
  ASSERT_OK(Push(3));
  ExpectTensorIs(*first, 2, 1);
  ExpectIs(*second, 2);
  second->tensors.clear();
  ASSERT_OK(Push(4));
  ASSERT_OK(Push(5));
  ExpectTensorIs(*first, 2, 1);
  first->tensors.clear();
  auto inspector = Inspector::Connect(Channel(Transport::kAuto));
  ASSERT_OK(inspector);
  ASSERT_TRUE(Eventually([&] { return (*inspector)->ServerInfo()->active_pulls() == 0; }));
}

TEST_F(SharedMemory, ABrokenLeaseKeepsOnlyItsOwnVersionFromReuse) {
  Start();
  ASSERT_OK(Push(1));
  const auto broken = Subscribe();
  auto first = broken->Pull({});
  ASSERT_OK(first);
  const auto orderly = Subscribe();
  {
    auto also = orderly->Pull({});  // of the same slabs, and gives them back
    ASSERT_OK(also);
  }
  broken->Cancel();
  for (uint64_t version = 2; version <= 6; ++version) {
    ASSERT_OK(Push(version));
    auto pulled = orderly->Pull({});
    ASSERT_OK(pulled);
    ExpectIs(*pulled, version);
    ExpectIs(*first, 1);
  }
}

TEST_F(SharedMemory, WhatAWorkerWritesNobodyElseSees) {
  Start();
  ASSERT_OK(Push(1));
  auto mine = Subscribe()->Pull({});
  ASSERT_OK(mine);
  std::fill(mine->tensors[0].data->span().begin(), mine->tensors[0].data->span().end(), std::byte{0xFF});
  auto other = Subscribe()->Pull({});
  ASSERT_OK(other);
  ExpectIs(*other, 1);
}

TEST_F(SharedMemory, AShutdownDoesNotWaitForWhatIsMapped) {
  Start();
  ASSERT_OK(Push(1));
  const auto subscriber = Subscribe();
  auto pulled = subscriber->Pull({});
  ASSERT_OK(pulled);
  const auto begin = std::chrono::steady_clock::now();
  server_->Shutdown(std::chrono::seconds(60));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
  server_.reset();
  ExpectIs(*pulled, 1);
}

TEST_F(SharedMemory, WithoutItAllGoesOverTheConnection) {
  Start(/*shared_memory=*/false);
  EXPECT_OK(Push(1, Transport::kAuto));
  auto pulled = Subscribe(Transport::kAuto)->Pull({});
  ASSERT_OK(pulled);
  ExpectIs(*pulled, 1);
  EXPECT_THAT(Push(2), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("shared memory")));
  EXPECT_THAT(Subscribe()->Pull({}), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("shares no memory")));
}

TEST_F(SharedMemory, PartsOfTensorsAreMappedWhereTheyStandInOnePiece) {
  Start();
  ASSERT_OK(Push(1));
  PullOptions options;
  options.names = {"large"};
  options.boxes = {{"large", Box{{1'000'000}, {3'000'000}}}};
  auto pulled = Subscribe()->Pull(options);
  ASSERT_OK(pulled);
  const Bytes expected = Values(kSpecs[0], 1);
  ASSERT_EQ(pulled->tensors[0].data->size(), 3'000'000U);
  EXPECT_TRUE(std::equal(expected.begin() + 1'000'000, expected.begin() + 4'000'000, pulled->tensors[0].data->data()));
}

// A trainer that says what it likes.
class RawPush {
 public:
  explicit RawPush(const RefitServer& server) {
    ChannelOptions options;
    options.address = server.address();
    channel_ = *Connect(options);
    stub_ = v1::PushService::NewStub(channel_);
    stream_ = stub_->Push(&context_);
  }

  v1::VersionOpened Open(const v1::SharedSegment& segment) {
    v1::PushRequest request;
    request.mutable_open()->set_model("default");
    request.mutable_open()->set_version(1);
    request.mutable_open()->set_adapter("identity");
    *request.mutable_open()->mutable_segment() = segment;
    stream_->Write(request);
    v1::TensorSpec& spec = *request.mutable_declare()->add_tensors()->mutable_tensor();
    spec.set_name("t");
    spec.set_dtype(v1::DTYPE_U8);
    spec.add_shape(100);
    request.mutable_declare()->set_last(true);
    stream_->Write(request);
    v1::PushResponse response;
    EXPECT_TRUE(stream_->Read(&response));
    return response.opened();
  }

  grpc::Status SendShared(uint64_t begin, uint64_t bytes) {
    v1::PushRequest request;
    request.mutable_shared_chunk()->mutable_chunk();
    request.mutable_shared_chunk()->set_begin(begin);
    request.mutable_shared_chunk()->set_bytes(bytes);
    stream_->Write(request);
    stream_->WritesDone();
    v1::PushResponse response;
    while (stream_->Read(&response)) continue;
    return stream_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::PushService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::PushRequest, v1::PushResponse>> stream_;
};

TEST_F(SharedMemory, ChunksBeyondTheSegmentAreRefused) {
  Start();
  auto memory = Buffer::Allocate(2 << 20, Backing::kShared);
  ASSERT_OK(memory);
  const std::pair<uint64_t, uint64_t> places[] = {{(2 << 20) - 99, 100}, {2 << 20, 100}, {~0ULL, 100}, {1, ~0ULL}};
  for (const auto& [begin, bytes] : places) {
    RawPush push(*server_);
    ASSERT_TRUE(push.Open(Announce(**memory)).shared_memory());
    const grpc::Status status = push.SendShared(begin, bytes);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr("of shared memory that has 2097152"));
  }
}

TEST_F(SharedMemory, ASegmentThatIsNoneIsNotMapped) {
  Start();
  const std::string path = testing::TempDir() + "/no_memory";
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  ASSERT_GE(file, 0);
  ASSERT_EQ(ftruncate(file, 4096), 0);
  v1::SharedSegment segment;
  segment.set_pid(getpid());
  segment.set_fd(file);
  segment.set_bytes(4096);
  RawPush push(*server_);
  EXPECT_FALSE(push.Open(segment).shared_memory());
  const grpc::Status status = push.SendShared(0, 100);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION) << status.error_message();
  close(file);
  unlink(path.c_str());
}

}  // namespace
}  // namespace refit

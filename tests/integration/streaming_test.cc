// Versions larger than the service's memory pass through it, tensor by tensor.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/net/byte_buffer.h"
#include "common/net/channel.h"
#include "common/net/messages.h"
#include "common/net/raw_call.h"
#include "common/wire/digest.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/server.h"
#include "refit/subscriber.h"
#include "refit/v1/push.pb.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kTensorBytes = 1 << 20;
constexpr size_t kTensors = 24;
constexpr uint64_t kMemory = 4 * kTensorBytes;

std::vector<TensorSpec> Specs() {
  std::vector<TensorSpec> specs;
  for (size_t i = 0; i < kTensors; ++i) {
    specs.push_back({absl::StrCat("t", i), DType::kF32, {kTensorBytes / 4}});
  }
  return specs;
}

std::vector<std::byte> Values(size_t tensor) {
  std::vector<std::byte> bytes(kTensorBytes);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>((i * 2654435761U >> 11) + tensor);
  return bytes;
}

class Streaming : public ::testing::Test {
 protected:
  void Start(uint32_t stream_to, std::chrono::milliseconds worker_timeout = std::chrono::seconds(60),
             uint64_t memory = kMemory, std::chrono::milliseconds waiting_interval = std::chrono::milliseconds(50)) {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.store.chunk_bytes = 64 << 10;
    options.store.memory_budget_bytes = memory;
    options.store.retain_versions = 0;
    options.store.stream_to = stream_to;
    options.limits.worker_timeout = worker_timeout;
    options.limits.push_window_bytes = 256 << 10;
    options.limits.waiting_interval = waiting_interval;
    auto server = RefitServer::Start(options);
    ASSERT_OK(server);
    server_ = *std::move(server);
    channel_.address = server_->address();
  }

  absl::StatusOr<std::unique_ptr<VersionPush>> Open(uint64_t version, std::vector<TensorSpec> specs = Specs()) {
    if (publisher_ == nullptr) {
      auto publisher = Publisher::Connect(channel_);
      if (!publisher.ok()) return publisher.status();
      publisher_ = *std::move(publisher);
    }
    PublishOptions options;
    options.version = version;
    options.adapter = "identity";
    options.on_waiting = [this](absl::Span<const uint32_t> missing) { waited_ += missing.empty() ? 1 : 0; };
    return publisher_->Open(options, std::move(specs));
  }

  static absl::Status PushAll(VersionPush& push) {
    for (size_t i = 0; i < kTensors; ++i) {
      if (absl::Status status = push.Append(i, Values(i)); !status.ok()) return status;
    }
    return push.Commit().status();
  }

  absl::StatusOr<PulledVersion> Pull(uint64_t version, const std::string& filter = "") {
    auto subscriber = Subscriber::Connect(channel_);
    if (!subscriber.ok()) return subscriber.status();
    PullOptions options;
    options.version = version;
    options.filter = filter;
    return (*subscriber)->Pull(options);
  }

  static void ExpectWhole(const absl::StatusOr<PulledVersion>& pulled) {
    ASSERT_OK(pulled);
    ASSERT_EQ(pulled->tensors.size(), kTensors);
    for (size_t i = 0; i < kTensors; ++i) {
      const std::vector<std::byte> expected = Values(i);
      ASSERT_TRUE(std::equal(expected.begin(), expected.end(), pulled->tensors[i].data->data())) << i;
    }
  }

  uint64_t ReservedBytes() {
    auto inspector = Inspector::Connect(channel_);
    EXPECT_OK(inspector);
    return (*inspector)->ServerInfo()->memory_reserved_bytes();
  }

  std::unique_ptr<RefitServer> server_;
  ChannelOptions channel_;
  std::unique_ptr<Publisher> publisher_;
  std::atomic<int> waited_{0};
};

// Nothing says yet which rank sends what.
TEST_F(Streaming, AChunkBeforeAllRanksHaveComeIsRefused) {
  Start(/*stream_to=*/1);
  v1::PushRequest open;
  open.mutable_open()->set_model("default");
  open.mutable_open()->set_version(1);
  open.mutable_open()->set_world(2);
  v1::PushRequest declare;
  declare.mutable_declare()->set_last(true);
  ToProto(Specs()[0], *declare.mutable_declare()->add_tensors()->mutable_tensor());
  const std::byte one{1};
  ChunkHeader header;
  header.digest = DigestBytes({&one, 1});

  auto channel = Connect(channel_);
  ASSERT_OK(channel);
  auto call = RawCall::Start(*channel, "/refit.v1.PushService/Push");
  for (const grpc::ByteBuffer& message : {Serialize(open), Serialize(declare), CopyChunkMessage(header, {&one, 1})}) {
    ASSERT_OK(call->Write(message, std::chrono::seconds(30)));
  }
  while (true) {
    const auto answer = call->Read(std::chrono::seconds(30));
    if (!answer.ok() || !answer->has_value()) break;
  }
  EXPECT_THAT(call->Finish(std::chrono::seconds(30)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("before all 2 ranks")));
}

TEST_F(Streaming, AVersionSixTimesTheMemoryPassesThroughIt) {
  Start(1);
  for (uint64_t version = 1; version <= 3; ++version) {
    auto push = Open(version);
    ASSERT_OK(push);
    absl::StatusOr<PulledVersion> pulled;
    std::thread worker([&] { pulled = Pull(version); });
    EXPECT_OK(PushAll(**push));
    worker.join();
    ExpectWhole(pulled);
    EXPECT_LE(ReservedBytes(), kMemory);
  }
  EXPECT_EQ(ReservedBytes(), 0U);
}

TEST_F(Streaming, ATensorsMemoryIsTheNextOnesAsSoonAsItWasSent) {
  // Room for one at a time, and no message of any kind that would free it by chance.
  Start(1, std::chrono::seconds(60), kTensorBytes, std::chrono::seconds(30));
  auto push = Open(1);
  ASSERT_OK(push);
  absl::StatusOr<PulledVersion> pulled;
  std::thread worker([&] { pulled = Pull(1); });
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_OK(PushAll(**push));
  worker.join();
  ExpectWhole(pulled);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(25));
}

TEST_F(Streaming, TheTrainerWaitsForAWorkerAndHearsSo) {
  Start(1);
  auto push = Open(1);
  ASSERT_OK(push);
  absl::Status pushed;
  std::thread trainer([&] { pushed = PushAll(**push); });
  while (waited_ < 2) std::this_thread::yield();
  EXPECT_LE(ReservedBytes(), kMemory);
  ExpectWhole(Pull(1));
  trainer.join();
  EXPECT_OK(pushed);
}

TEST_F(Streaming, TensorsStayUntilAllWorkersHaveThem) {
  Start(2);
  auto push = Open(1);
  ASSERT_OK(push);
  absl::Status pushed;
  std::thread trainer([&] { pushed = PushAll(**push); });
  absl::StatusOr<PulledVersion> first;
  std::thread early([&] { first = Pull(1); });
  while (waited_ < 2) std::this_thread::yield();  // the first worker has all that there is
  ExpectWhole(Pull(1));
  early.join();
  trainer.join();
  ExpectWhole(first);
  EXPECT_OK(pushed);
}

TEST_F(Streaming, AWorkerThatWantsLittleHoldsNobodyUp) {
  Start(1);
  auto push = Open(1);
  ASSERT_OK(push);
  absl::StatusOr<PulledVersion> pulled;
  std::thread worker([&] { pulled = Pull(1, "^t(9|23)$"); });
  EXPECT_OK(PushAll(**push));
  worker.join();
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->tensors.size(), 2U);
}

TEST_F(Streaming, AWorkerThatComesTooLateIsTold) {
  Start(1);
  auto push = Open(1);
  ASSERT_OK(push);
  absl::StatusOr<PulledVersion> pulled;
  std::thread worker([&] { pulled = Pull(1); });
  ASSERT_OK(PushAll(**push));
  worker.join();
  ExpectWhole(pulled);
  EXPECT_THAT(Pull(1), StatusIs(absl::StatusCode::kFailedPrecondition,
                                AllOf(HasSubstr("streamed to 1 worker"), HasSubstr("pull the next version"))));
}

TEST_F(Streaming, WithoutWorkersTheVersionIsAbortedInTime) {
  Start(1, std::chrono::milliseconds(300));
  auto push = Open(1);
  ASSERT_OK(push);
  EXPECT_THAT(PushAll(**push),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("the memory is full, and workers took nothing")));
  EXPECT_EQ(ReservedBytes(), 0U);
  // The next one is unaffected.
  auto next = Open(1);
  ASSERT_OK(next);
  absl::StatusOr<PulledVersion> pulled;
  std::thread worker([&] { pulled = Pull(1); });
  EXPECT_OK(PushAll(**next));
  worker.join();
  ExpectWhole(pulled);
}

TEST_F(Streaming, ATrainerThatDiesWhileItWaitsLeavesNothing) {
  Start(1);
  auto push = Open(1);
  ASSERT_OK(push);
  std::thread trainer([&] { (void)PushAll(**push); });
  while (waited_ < 1) std::this_thread::yield();
  EXPECT_OK(publisher_->Abort("default", 1, "enough"));
  trainer.join();
  EXPECT_EQ(ReservedBytes(), 0U);
}

TEST_F(Streaming, ATensorLargerThanTheMemoryIsRefusedAtOnce) {
  Start(1);
  EXPECT_THAT(Open(1, {{"small", DType::kU8, {10}}, {"large", DType::kU8, {kMemory + 1}}}),
              StatusIs(absl::StatusCode::kResourceExhausted, AllOf(HasSubstr("large"), HasSubstr("--memory"))));
}

TEST_F(Streaming, ANewVersionTakesThePlaceOfOneThatNobodyPulled) {
  Start(1);
  for (uint64_t version = 1; version <= 2; ++version) {
    auto push = Open(version, {{"only", DType::kU8, {kMemory}}});
    ASSERT_OK(push);
    ASSERT_OK((*push)->Append(0, std::vector<std::byte>(kMemory)));
    ASSERT_OK((*push)->Commit());
  }
  EXPECT_OK(Pull(2));
  EXPECT_THAT(Pull(1), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("retired")));
}

}  // namespace
}  // namespace refit

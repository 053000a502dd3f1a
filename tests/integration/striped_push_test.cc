// A trainer that is not sharded pushes a version over several connections: whole or not at all, and the same bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/subscriber.h"
#include "tests/fault/fault_proxy.h"
#include "tests/support/fleet.h"

namespace refit {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

using Bytes = std::vector<std::byte>;

constexpr uint32_t kStreams = 3;

class StripedPushTest : public ::testing::Test {
 protected:
  void Start(ServerOptions options = {}) {
    options.limits.waiting_interval = std::chrono::milliseconds(50);
    server_ = StartService(options);
    ASSERT_NE(server_, nullptr);
    proxy_ = std::make_unique<FaultProxy>(server_->port());
    auto publisher = Publisher::Connect(WireTo(proxy_->address()), kStreams);
    ASSERT_OK(publisher);
    publisher_ = *std::move(publisher);
  }
  void SetUp() override { Start(); }

  PublishOptions Options(uint64_t version) const { return model_.Options(version); }

  absl::StatusOr<std::unique_ptr<VersionPush>> Open(uint64_t version) {
    return publisher_->Open(Options(version), model_.specs());
  }

  void ExpectPulled(uint64_t version) {
    auto subscriber = Subscriber::Connect(WireTo(server_->address()));
    ASSERT_OK(subscriber);
    PullOptions options;
    options.version = version;
    const auto pulled = (*subscriber)->Pull(options);
    ASSERT_OK(pulled);
    ASSERT_EQ(pulled->tensors.size(), model_.specs().size());
    for (size_t i = 0; i < pulled->tensors.size(); ++i) {
      const Bytes expected = model_.Bytes(version, i);
      EXPECT_TRUE(absl::MakeConstSpan(expected) == pulled->tensors[i].data->span()) << "tensor " << i;
    }
  }

  // 54 MB, in tensors that are divided unevenly.
  const TestModel model_{4, 1023, 3301};
  std::unique_ptr<RefitServer> server_;
  std::unique_ptr<FaultProxy> proxy_;
  std::unique_ptr<Publisher> publisher_;
};

TEST_F(StripedPushTest, IsOneVersionOfTheSameBits) {
  const auto striped = model_.Push(*publisher_, Options(1));
  ASSERT_OK(striped);
  EXPECT_EQ(striped->world, kStreams);
  ExpectPulled(1);
  auto alone = Publisher::Connect(WireTo(proxy_->address()));
  ASSERT_OK(alone);
  EXPECT_EQ(model_.Push(**alone, Options(2))->world, 1u);
  ExpectPulled(2);
}

// Pieces of any length, with and without an owner, of tensors in any order.
TEST_F(StripedPushTest, TakesPiecesAsTheyCome) {
  const auto push = Open(1);
  ASSERT_OK(push);
  std::vector<std::shared_ptr<Bytes>> tensors;
  for (size_t i = 0; i < model_.specs().size(); ++i) tensors.push_back(std::make_shared<Bytes>(model_.Bytes(1, i)));
  std::vector<size_t> sent(tensors.size(), 0);
  const size_t piece = 3'000'004;
  for (bool more = true; more;) {
    more = false;
    for (size_t i = tensors.size(); i-- > 0;) {
      const auto bytes = absl::MakeConstSpan(*tensors[i]).subspan(sent[i], piece);
      if (bytes.empty()) continue;
      if (i % 2 == 0) {
        ASSERT_OK((*push)->Append(i, bytes, tensors[i]));
      } else {
        Bytes copy(bytes.begin(), bytes.end());
        ASSERT_OK((*push)->Append(i, copy));
        std::fill(copy.begin(), copy.end(), std::byte{0});  // the push has bytes of its own
      }
      sent[i] += bytes.size();
      more = true;
    }
  }
  ASSERT_OK((*push)->Commit());
  for (const auto& tensor : tensors) EXPECT_EQ(tensor.use_count(), 1);
  ExpectPulled(1);
}

TEST_F(StripedPushTest, SmallAndEmptyTensorsAndScalarsAreSentOnce) {
  std::vector<TensorSpec> specs = {{"scalar", DType::kF32, {}}, {"empty", DType::kBF16, {0, 7}}};
  for (int i = 0; i < 40; ++i) specs.push_back({absl::StrCat("small.", i), DType::kF32, {1, 1 << 20}});
  PublishOptions options = Options(1);
  const auto push = publisher_->Open(options, specs);
  ASSERT_OK(push);
  EXPECT_EQ((*push)->summary().world, kStreams);
  uint64_t bytes = 0;
  for (size_t i = 0; i < specs.size(); ++i) {
    const Bytes value(specs[i].ByteSize(), static_cast<std::byte>(i + 1));
    ASSERT_OK((*push)->Push(specs[i].name, value));
    bytes += value.size();
  }
  const auto committed = (*push)->Commit();
  ASSERT_OK(committed);
  EXPECT_EQ(committed->received_bytes, bytes);
  EXPECT_EQ(committed->bytes, bytes);
}

TEST_F(StripedPushTest, ASmallVersionTakesOneConnection) {
  const TestModel small(3, 16, 16);
  const auto committed = small.Push(*publisher_, 1);
  ASSERT_OK(committed);
  EXPECT_EQ(committed->world, 1u);
}

TEST_F(StripedPushTest, WrongCallsAreErrorsAndThePushGoesOn) {
  const auto push = Open(1);
  ASSERT_OK(push);
  const Bytes bytes = model_.Bytes(1, 0);
  EXPECT_THAT((*push)->Append(99, bytes), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("no tensor 99")));
  EXPECT_THAT((*push)->Append(0, absl::MakeConstSpan(bytes).first(3)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("whole elements")));
  EXPECT_THAT((*push)->Push("layer.1.weight", bytes),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("expected")));
  EXPECT_THAT((*push)->Push("layer.99", bytes), StatusIs(absl::StatusCode::kNotFound, HasSubstr("not declared")));
  EXPECT_THAT((*push)->Commit(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("layer.0.weight")));
  for (size_t i = 0; i < model_.specs().size(); ++i) ASSERT_OK((*push)->Append(i, model_.Bytes(1, i)));
  EXPECT_THAT((*push)->Append(0, bytes), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("lacks 0")));
  ASSERT_OK((*push)->Commit());
  EXPECT_THAT((*push)->Append(0, bytes), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("committed")));
  ExpectPulled(1);
}

TEST_F(StripedPushTest, RanksAreConnectionsAlready) {
  PublishOptions options = Options(1);
  options.world = 2;
  EXPECT_THAT(publisher_->Open(options, model_.specs()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("connect with streams 1")));
  EXPECT_THAT(Publisher::Connect(WireTo(proxy_->address()), 1000),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1000 connections")));
}

TEST_F(StripedPushTest, OneConnectionThatIsCutAbortsTheVersion) {
  const auto push = Open(1);
  ASSERT_OK(push);
  proxy_->Inject({.kind = Fault::Kind::kCut, .after_bytes = 20'000'000, .towards_client = false});
  absl::Status status;
  for (size_t i = 0; status.ok() && i < model_.specs().size(); ++i) {
    const auto bytes = std::make_shared<Bytes>(model_.Bytes(1, i));
    status = (*push)->Append(i, *bytes, bytes);
  }
  if (status.ok()) status = (*push)->Commit().status();
  EXPECT_THAT(status.code(), AnyOf(absl::StatusCode::kUnavailable, absl::StatusCode::kAborted)) << status;
  EXPECT_EQ((*push)->Commit().status(), status);
  EXPECT_OK((*push)->Abort("again"));
  EXPECT_EQ(proxy_->struck(), 1u);
  ASSERT_OK(model_.Push(*publisher_, Options(1)));  // the number is free again
  ExpectPulled(1);
}

TEST_F(StripedPushTest, AnAbortAndALostPushLeaveNothing) {
  {
    const auto push = Open(1);
    ASSERT_OK(push);
    ASSERT_OK((*push)->Append(0, model_.Bytes(1, 0)));
    ASSERT_OK((*push)->Abort("no longer wanted"));
    EXPECT_OK((*push)->Abort("again"));
    EXPECT_THAT((*push)->Commit(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no longer wanted")));
  }
  {
    const auto push = Open(2);
    ASSERT_OK(push);
    ASSERT_OK((*push)->Append(0, model_.Bytes(2, 0)));
  }
  ASSERT_OK(model_.Push(*publisher_, Options(3)));
  ExpectPulled(3);
}

TEST_F(StripedPushTest, CancelEndsIt) {
  const auto push = Open(1);
  ASSERT_OK(push);
  publisher_->Cancel();
  absl::Status status;
  for (size_t i = 0; status.ok() && i < model_.specs().size(); ++i) status = (*push)->Append(i, model_.Bytes(1, i));
  if (status.ok()) status = (*push)->Commit().status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kCancelled, HasSubstr("push of default/1")));
}

// Connections go through the tensors in step, so a service that has room for few of them is never stuck.
class StreamedStripedPush : public StripedPushTest, public ::testing::WithParamInterface<TestModel> {};

TEST_P(StreamedStripedPush, GoesThroughLittleMemory) {
  const TestModel& model = GetParam();
  ServerOptions options;
  options.store.retain_versions = 0;
  options.store.memory_budget_bytes = 32 << 20;
  Start(options);
  auto subscriber = Subscriber::Connect(WireTo(server_->address()));
  ASSERT_OK(subscriber);
  const auto push = publisher_->Open(model.Options(1), model.specs());
  ASSERT_OK(push);
  EXPECT_EQ((*push)->summary().world, kStreams);
  absl::StatusOr<PulledVersion> pulled;
  std::thread worker([&] {
    PullOptions pull;
    pull.version = 1;
    pulled = (*subscriber)->Pull(pull);
  });
  absl::Status status;
  for (size_t i = 0; status.ok() && i < model.specs().size(); ++i) status = (*push)->Append(i, model.Bytes(1, i));
  EXPECT_OK(status);
  EXPECT_OK((*push)->Commit());
  worker.join();
  EXPECT_OK(pulled);
}

INSTANTIATE_TEST_SUITE_P(Tensors, StreamedStripedPush,
                         ::testing::Values(TestModel(4, 1023, 3301), TestModel(8, 1023, 1700)));

}  // namespace
}  // namespace refit

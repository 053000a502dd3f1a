// One version over several connections: the same bits as over one, each connection resumes by itself, and all or
// nothing.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/inspector.h"
#include "refit/subscriber.h"
#include "tests/fault/fault_proxy.h"
#include "tests/fault/paced_proxy.h"
#include "tests/support/eventually.h"
#include "tests/support/fleet.h"

namespace refit {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr uint32_t kStreams = 3;

// Notes the calls of a sink.
class NotingSink : public TensorSink {
 public:
  explicit NotingSink(bool takes_several = true) : takes_several_(takes_several) {}

  absl::Status Begin(const VersionSummary&, const std::vector<TensorPart>& tensors) override {
    EXPECT_EQ(std::this_thread::get_id(), thread_);
    ++begun;
    memory.resize(tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) memory[i].resize(tensors[i].ByteSize());
    return absl::OkStatus();
  }
  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override {
    EXPECT_EQ(std::this_thread::get_id(), thread_);
    EXPECT_EQ(index, placed++);
    most_open = std::max(most_open, placed - done);
    if (index == fails_at) return absl::InternalError("the sink has no room");
    return absl::MakeSpan(memory[index]);
  }
  absl::Status Done(size_t index) override {
    EXPECT_EQ(std::this_thread::get_id(), thread_);
    EXPECT_EQ(index, done++);
    EXPECT_LE(done, placed);
    return absl::OkStatus();
  }
  bool TakesSeveral() override { return takes_several_; }
  void Progress(uint64_t bytes) override {
    EXPECT_EQ(std::this_thread::get_id(), thread_);
    progress += bytes;
  }

  std::vector<std::vector<std::byte>> memory;
  int begun = 0;
  size_t placed = 0;
  size_t done = 0;
  size_t most_open = 0;
  uint64_t progress = 0;
  size_t fails_at = SIZE_MAX;

 private:
  const bool takes_several_;
  const std::thread::id thread_ = std::this_thread::get_id();
};

class StripedPullTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server_ = StartService();
    ASSERT_NE(server_, nullptr);
    proxy_ = std::make_unique<FaultProxy>(server_->port());
    auto publisher = Publisher::Connect(WireTo(server_->address()));
    ASSERT_OK(publisher);
    publisher_ = *std::move(publisher);
    ASSERT_OK(model_.Push(*publisher_, 1));
    auto subscriber = Subscriber::Connect(WireTo(proxy_->address()));
    ASSERT_OK(subscriber);
    subscriber_ = *std::move(subscriber);
  }

  static PullOptions Options(uint32_t streams = kStreams) {
    PullOptions options;
    options.streams = streams;
    return options;
  }

  void ExpectWhole(const PulledVersion& pulled, const TestModel& model) {
    ASSERT_EQ(pulled.tensors.size(), model.specs().size());
    for (size_t i = 0; i < pulled.tensors.size(); ++i) {
      const std::vector<std::byte> expected = model.Bytes(pulled.result.version.version, i);
      EXPECT_TRUE(absl::MakeConstSpan(expected) == pulled.tensors[i].data->span()) << "tensor " << i;
    }
  }
  void ExpectWhole(const PulledVersion& pulled) { ExpectWhole(pulled, model_); }

  // 81 MB, in tensors that are divided unevenly.
  const TestModel model_{6, 1023, 3301};
  std::unique_ptr<RefitServer> server_;
  std::unique_ptr<FaultProxy> proxy_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<Subscriber> subscriber_;
};

TEST_F(StripedPullTest, IsTheSameVersionAsOverOneConnection) {
  const auto alone = subscriber_->Pull({});
  ASSERT_OK(alone);
  EXPECT_EQ(alone->result.streams, 1u);
  for (int round = 0; round < 2; ++round) {  // the second over connections that are there
    const auto striped = subscriber_->Pull(Options());
    ASSERT_OK(striped);
    ExpectWhole(*striped);
    EXPECT_EQ(striped->result.streams, kStreams);
    EXPECT_EQ(striped->result.bytes, alone->result.bytes);
    EXPECT_EQ(striped->result.tensors, alone->result.tensors);
    EXPECT_EQ(striped->result.selection_digest, alone->result.selection_digest);
    EXPECT_EQ(striped->result.version.manifest_digest, alone->result.version.manifest_digest);
    EXPECT_EQ(striped->result.traffic.wire_bytes, alone->result.traffic.wire_bytes);
  }
}

TEST_F(StripedPullTest, TheSinkIsCalledInOrderByTheThreadThatPulls) {
  NotingSink sink;
  const auto result = subscriber_->Pull(Options(), sink);
  ASSERT_OK(result);
  EXPECT_EQ(result->streams, kStreams);
  EXPECT_EQ(sink.begun, 1);
  EXPECT_EQ(sink.done, model_.specs().size());
  EXPECT_EQ(sink.progress, result->bytes);
  for (size_t i = 0; i < sink.memory.size(); ++i) EXPECT_EQ(sink.memory[i], model_.Bytes(1, i)) << "tensor " << i;
}

TEST_F(StripedPullTest, ASinkThatTakesTensorsOneByOneGetsThemSo) {
  NotingSink sink(/*takes_several=*/false);
  const auto result = subscriber_->Pull(Options(), sink);
  ASSERT_OK(result);
  EXPECT_EQ(result->streams, 1u);
  EXPECT_EQ(sink.most_open, 1u);
}

TEST_F(StripedPullTest, AnErrorOfTheSinkEndsIt) {
  NotingSink sink;
  sink.fails_at = 2;
  EXPECT_THAT(subscriber_->Pull(Options(), sink),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("the sink has no room")));
  const auto again = subscriber_->Pull(Options());
  ASSERT_OK(again);
  ExpectWhole(*again);
}

TEST_F(StripedPullTest, SelectionsNamesAndBoxes) {
  for (const bool by_names : {false, true}) {
    PullOptions options = Options();
    if (by_names) {
      options.names = {"layer.5.weight", "layer.2.weight", "layer.0.weight"};
    } else {
      options.filter = "layer\\.[0-4]";
      options.rules = {{.dimension = 1, .part = 1, .parts = 2}};
    }
    PullOptions one = options;
    one.streams = 1;
    const auto alone = subscriber_->Pull(one);
    const auto striped = subscriber_->Pull(options);
    ASSERT_OK(alone);
    ASSERT_OK(striped);
    EXPECT_GT(striped->result.streams, 1u);
    ASSERT_EQ(striped->tensors.size(), alone->tensors.size());
    for (size_t i = 0; i < alone->tensors.size(); ++i) {
      EXPECT_EQ(striped->tensors[i].part, alone->tensors[i].part);
      EXPECT_TRUE(striped->tensors[i].data->span() == alone->tensors[i].data->span()) << "tensor " << i;
    }
    EXPECT_EQ(striped->result.selection_digest, alone->result.selection_digest);
  }
}

TEST_F(StripedPullTest, WhatIsWrongIsSaidAsOverOneConnection) {
  PullOptions options = Options();
  options.names = {"layer.99.weight"};
  EXPECT_THAT(subscriber_->Pull(options), StatusIs(absl::StatusCode::kNotFound, HasSubstr("layer.99.weight")));
  options = Options();
  options.version = 7;
  EXPECT_THAT(subscriber_->Pull(options), StatusIs(absl::StatusCode::kNotFound, HasSubstr("pull of default/7")));
}

TEST_F(StripedPullTest, ASmallVersionTakesOneConnection) {
  const TestModel small(3, 16, 16);
  ASSERT_OK(small.Push(*publisher_, 2));
  const auto pulled = subscriber_->Pull(Options());
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.streams, 1u);
  ExpectWhole(*pulled, small);
}

// Verified bytes do not come again, and one that is cut keeps nobody else from its part.
TEST_F(StripedPullTest, EachConnectionGoesOnWhereItWasCut) {
  const uint64_t bytes = subscriber_->Pull(Options())->result.bytes;
  for (const Fault::Kind kind : {Fault::Kind::kCut, Fault::Kind::kTruncate, Fault::Kind::kFlip}) {
    const uint64_t before = proxy_->bytes_to_client();
    const uint64_t struck = proxy_->struck();
    proxy_->Inject({.kind = kind, .after_bytes = bytes / 5 * 4});
    const auto pulled = subscriber_->Pull(Options());
    ASSERT_OK(pulled);
    EXPECT_EQ(proxy_->struck(), struck + 1);
    EXPECT_GE(pulled->result.resumed, 1u);
    ExpectWhole(*pulled);
    // What was on its way; the share of one connection would be more.
    EXPECT_LT(proxy_->bytes_to_client() - before, bytes + (20 << 20));
  }
}

TEST_F(StripedPullTest, AVersionThatIsStillPushedComesWithItsCommit) {
  const auto push = publisher_->Open(model_.Options(2), model_.specs());
  ASSERT_OK(push);
  PullOptions options = Options();
  options.version = 2;
  absl::StatusOr<PulledVersion> pulled;
  std::thread worker([&] { pulled = subscriber_->Pull(options); });
  for (size_t i = 0; i < model_.specs().size(); ++i) ASSERT_OK((*push)->Append(i, model_.Bytes(2, i)));
  ASSERT_OK((*push)->Commit());
  worker.join();
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.streams, kStreams);
  ExpectWhole(*pulled);
}

// Every stream would count as a worker that has a tensor, which is then gone.
TEST_F(StripedPullTest, AStreamedVersionComesOverOneConnection) {
  ServerOptions streaming;
  streaming.store.retain_versions = 0;
  streaming.store.memory_budget_bytes = 48 << 20;
  const auto server = StartService(streaming);
  auto publisher = Publisher::Connect(WireTo(server->address()));
  auto subscriber = Subscriber::Connect(WireTo(server->address()));
  ASSERT_OK(publisher);
  ASSERT_OK(subscriber);
  const auto push = (*publisher)->Open(model_.Options(1), model_.specs());
  ASSERT_OK(push);
  PullOptions options = Options();
  options.version = 1;
  absl::StatusOr<PulledVersion> pulled;
  std::thread worker([&] { pulled = (*subscriber)->Pull(options); });
  absl::Status status;
  for (size_t i = 0; status.ok() && i < model_.specs().size(); ++i) status = (*push)->Append(i, model_.Bytes(1, i));
  EXPECT_OK(status);
  EXPECT_OK((*push)->Commit());
  worker.join();
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.streams, 1u);
  ExpectWhole(*pulled);
}

TEST_F(StripedPullTest, AnAbortEndsIt) {
  const auto push = publisher_->Open(model_.Options(2), model_.specs());
  ASSERT_OK(push);
  ASSERT_OK((*push)->Append(0, model_.Bytes(2, 0)));
  PullOptions options = Options();
  options.version = 2;
  absl::StatusOr<PulledVersion> pulled;
  std::thread worker([&] { pulled = subscriber_->Pull(options); });
  ASSERT_OK((*push)->Abort("changed its mind"));
  worker.join();
  EXPECT_THAT(pulled.status().code(), AnyOf(absl::StatusCode::kAborted, absl::StatusCode::kFailedPrecondition))
      << pulled.status();
}

TEST_F(StripedPullTest, CancelEndsIt) {
  const auto push = publisher_->Open(model_.Options(2), model_.specs());  // it never comes
  ASSERT_OK(push);
  PullOptions options = Options();
  options.version = 2;
  absl::StatusOr<PulledVersion> pulled;
  std::thread worker([&] { pulled = subscriber_->Pull(options); });
  subscriber_->Cancel();
  worker.join();
  EXPECT_THAT(pulled, StatusIs(absl::StatusCode::kCancelled));
}

// What has changed comes over several connections, too.
TEST_F(StripedPullTest, OnlyWhatHasChanged) {
  const TestModel model(6, 1023, 3301, TestModel::Changes::kLittle);
  ASSERT_OK(model.Push(*publisher_, 2));
  const auto before = subscriber_->Pull(Options());
  ASSERT_OK(before);
  ASSERT_OK(model.Push(*publisher_, 3));
  PullOptions options = Options();
  options.base = BaseOf(*before);
  const auto after = subscriber_->Pull(options);
  ASSERT_OK(after);
  EXPECT_EQ(after->result.streams, kStreams);
  ExpectWhole(*after, model);
  EXPECT_EQ(after->result.traffic.base_version, 2u) << after->result.traffic.base_refused;
  EXPECT_GT(after->result.traffic.delta_chunks, 0u);
  EXPECT_LT(after->result.traffic.wire_bytes, after->result.bytes / 10);

  // Somebody has changed the base since: what depends on it comes whole.
  ASSERT_OK(model.Push(*publisher_, 4));
  before->tensors[1].data->data()[4711] ^= std::byte{1};
  const auto again = subscriber_->Pull(options);
  ASSERT_OK(again);
  ExpectWhole(*again, model);
}

// How many connections pay is found out where each of them is slow, and there are none to spare where one is enough.
TEST_F(StripedPullTest, AutoTakesMoreWhereThatPays) {
  const TestModel model(8, 2048, 4001);  // 262 MB
  ASSERT_OK(model.Push(*publisher_, 2));
  PacedProxy slow(server_->port(), {.rate = 60e6});
  auto subscriber = Subscriber::Connect(WireTo(slow.address()));
  ASSERT_OK(subscriber);
  const auto pulled = (*subscriber)->Pull(Options(0));
  ASSERT_OK(pulled);
  ExpectWhole(*pulled, model);
  EXPECT_GT(pulled->result.streams, 1u);
}

TEST_F(StripedPullTest, EachHasAConnectionOfItsOwn) {
  PacedProxy proxy(server_->port(), {});
  auto subscriber = Subscriber::Connect(WireTo(proxy.address()));
  ASSERT_OK(subscriber);
  const uint64_t before = proxy.connections();
  for (int round = 0; round < 2; ++round) {
    ASSERT_OK((*subscriber)->Pull(Options()));
    EXPECT_EQ(proxy.connections(), before + kStreams);
  }
}

// It goes on with as many as there may be.
TEST_F(StripedPullTest, AServiceMayTakeFewerPullsAtATime) {
  for (const uint32_t most : {1u, 2u, 3u}) {
    ServerOptions options;
    options.limits.max_pulls = most;
    const auto busy = StartService(options);
    auto publisher = Publisher::Connect(WireTo(busy->address()));
    ASSERT_OK(publisher);
    ASSERT_OK(model_.Push(**publisher, 1));
    auto subscriber = Subscriber::Connect(WireTo(busy->address()));
    ASSERT_OK(subscriber);
    const auto pulled = (*subscriber)->Pull(Options());
    ASSERT_OK(pulled) << most;
    ExpectWhole(*pulled);
    EXPECT_EQ(pulled->result.address, busy->address());
  }
}

TEST_F(StripedPullTest, AServiceThatIsBusyWithOthersSaysSoAtOnce) {
  ServerOptions options;
  options.limits.max_pulls = 1;
  const auto busy = StartService(options);
  auto publisher = Publisher::Connect(WireTo(busy->address()));
  ASSERT_OK(publisher);
  auto push = (*publisher)->Open(model_.Options(1), model_.specs());
  ASSERT_OK(push);
  auto other = Subscriber::Connect(WireTo(busy->address()));
  auto subscriber = Subscriber::Connect(WireTo(busy->address()));
  ASSERT_OK(other);
  ASSERT_OK(subscriber);
  PullOptions pull = Options();
  pull.version = 1;
  std::thread takes_all([&] { EXPECT_THAT((*other)->Pull(pull), StatusIs(absl::StatusCode::kAborted)); });
  auto inspector = Inspector::Connect(WireTo(busy->address()));
  ASSERT_OK(inspector);
  EXPECT_TRUE(Eventually([&] {
    const auto workers = (*inspector)->Workers();
    return workers.ok() && workers->workers_size() > 0;
  }));
  EXPECT_THAT((*subscriber)->Pull(pull), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("--max-pulls")));
  EXPECT_OK((*push)->Abort("enough"));
  takes_all.join();
}

TEST_F(StripedPullTest, StatusShowsOneWorker) {
  PullOptions options = Options();
  options.worker = "w0";
  ASSERT_OK(subscriber_->Pull(options));
  auto inspector = Inspector::Connect(WireTo(server_->address()));
  ASSERT_OK(inspector);
  const auto workers = (*inspector)->Workers();
  ASSERT_OK(workers);
  ASSERT_EQ(workers->workers_size(), 1);
}

}  // namespace
}  // namespace refit

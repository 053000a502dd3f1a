// A pull that is cut goes on where it was: nothing that was verified comes again.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "refit/subscriber.h"
#include "tests/fault/fault_proxy.h"
#include "tests/support/eventually.h"
#include "tests/support/fleet.h"

namespace refit {
namespace {

using ::testing::HasSubstr;

class ResumeTest : public ::testing::Test {
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

  void ExpectWhole(const PulledVersion& pulled) {
    ASSERT_EQ(pulled.tensors.size(), model_.specs().size());
    for (size_t i = 0; i < pulled.tensors.size(); ++i) {
      const std::vector<std::byte> expected = model_.Bytes(pulled.result.version.version, i);
      EXPECT_TRUE(absl::MakeConstSpan(expected) == pulled.tensors[i].data->span()) << "tensor " << i;
    }
  }

  uint64_t Bytes() const { return bytes_; }

  // 24 MB in tensors of several chunks.
  const TestModel model_{6, 512, 2048};
  const uint64_t bytes_ = 6 * 512 * 2048 * 4;
  std::unique_ptr<RefitServer> server_;
  std::unique_ptr<FaultProxy> proxy_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<Subscriber> subscriber_;
};

TEST_F(ResumeTest, ACutPullGoesOnWhereItWas) {
  for (const Fault::Kind kind : {Fault::Kind::kCut, Fault::Kind::kTruncate}) {
    for (const uint64_t at : {Bytes() / 10, Bytes() / 2, Bytes() - 100'000}) {
      const uint64_t before = proxy_->bytes_to_client();
      const uint64_t struck = proxy_->struck();
      proxy_->Inject({.kind = kind, .after_bytes = at});
      const auto pulled = subscriber_->Pull({});
      ASSERT_OK(pulled) << "at " << at;
      EXPECT_EQ(proxy_->struck(), struck + 1);
      EXPECT_EQ(pulled->result.resumed, 1u);
      ExpectWhole(*pulled);
      // Beyond the version itself, only what was on its way when the cut came: a few chunks and buffers.
      EXPECT_LT(proxy_->bytes_to_client() - before, Bytes() + (12 << 20)) << "at " << at;
    }
  }
}

TEST_F(ResumeTest, DamageOnTheWayIsNoticedAndNeverShown) {
  // Somewhere within payloads, by far the most bytes; where it hits a frame's header the connection breaks instead.
  for (uint64_t at = Bytes() / 7; at < Bytes() - 500'000; at += Bytes() / 7) {
    for (const Fault::Kind kind : {Fault::Kind::kFlip, Fault::Kind::kReorder}) {
      proxy_->Inject({.kind = kind, .after_bytes = at});
      const auto pulled = subscriber_->Pull({});
      if (pulled.ok()) {
        EXPECT_GE(pulled->result.resumed, 1u) << "at " << at;
        ExpectWhole(*pulled);
      }
      proxy_->Heal();
    }
  }
}

TEST_F(ResumeTest, ASilentNetworkIsNoticed) {
  ChannelOptions channel = WireTo(proxy_->address());
  channel.keepalive_interval = std::chrono::milliseconds(500);
  channel.keepalive_timeout = std::chrono::milliseconds(500);
  auto subscriber = Subscriber::Connect(channel);
  ASSERT_OK(subscriber);
  proxy_->Inject({.kind = Fault::Kind::kStall, .after_bytes = Bytes() / 3});
  const auto pulled = (*subscriber)->Pull({});
  ASSERT_OK(pulled);
  EXPECT_GE(pulled->result.resumed, 1u);
  EXPECT_LT(pulled->result.elapsed, std::chrono::seconds(30));
  ExpectWhole(*pulled);
}

// After damage on the way a connection may carry nothing, and yet look alive to gRPC for as long as anything trickles
// in.
TEST_F(ResumeTest, AConnectionThatCarriesNothingIsNotUsedAgain) {
  proxy_->Inject({.kind = Fault::Kind::kStall, .after_bytes = Bytes() / 3});
  PullOptions impatient;
  impatient.idle_timeout = std::chrono::milliseconds(500);
  EXPECT_THAT(subscriber_->Pull(impatient), StatusIs(absl::StatusCode::kDeadlineExceeded));
  const auto pulled = subscriber_->Pull(impatient);
  ASSERT_OK(pulled);
  ExpectWhole(*pulled);
}

// As proxies cut streams that carry nothing for a while.
TEST_F(ResumeTest, AWatchThatIsCutGoesOn) {
  std::atomic<uint64_t> newest = 0;
  absl::Status status;
  std::thread watch([&] {
    status = subscriber_->Watch({}, [&](const VersionSummary& version) {
      newest = version.version;
      return version.version < 2 || version.state != VersionState::kCommitted;
    });
  });
  EXPECT_TRUE(Eventually([&] { return newest == 1; }));
  proxy_->Inject({.kind = Fault::Kind::kCut});
  EXPECT_OK(model_.Push(*publisher_, 2));
  watch.join();
  EXPECT_OK(status);
  EXPECT_EQ(proxy_->struck(), 1u);
}

TEST_F(ResumeTest, AWatchEndsWithItsService) {
  absl::Status status;
  std::atomic<bool> begun = false;
  std::thread watch([&] {
    status = subscriber_->Watch({}, [&](const VersionSummary&) {
      begun = true;
      return true;
    });
  });
  EXPECT_TRUE(Eventually([&] { return begun.load(); }));
  server_.reset();
  proxy_->SetTarget(1);
  watch.join();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(ResumeTest, ADelayIsOnlyThat) {
  proxy_->Inject({.kind = Fault::Kind::kDelay, .after_bytes = Bytes() / 3, .delay = std::chrono::milliseconds(300)});
  const auto pulled = subscriber_->Pull({});
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.resumed, 0u);
  ExpectWhole(*pulled);
}

TEST_F(ResumeTest, WithoutAServiceItEndsInTime) {
  proxy_->Inject({.kind = Fault::Kind::kCut, .after_bytes = Bytes() / 2});
  PullOptions options;
  options.resume_within = std::chrono::milliseconds(1500);
  proxy_->SetTarget(1);  // the present connection goes on; new ones are refused
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THAT(subscriber_->Pull(options),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("pull of default/latest")));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST_F(ResumeTest, ResumingCanBeLeftOut) {
  proxy_->Inject({.kind = Fault::Kind::kCut, .after_bytes = Bytes() / 2});
  PullOptions options;
  options.resume_within = std::chrono::milliseconds(0);
  EXPECT_FALSE(subscriber_->Pull(options).ok());
  EXPECT_EQ(proxy_->struck(), 1u);
}

// Mix and match: a number that another service gave to other bytes.
TEST_F(ResumeTest, AnotherVersionOfTheSameNumberIsNotMixedIn) {
  auto other = StartService();
  auto publisher = Publisher::Connect(WireTo(other->address()));
  ASSERT_OK(publisher);
  ASSERT_OK(TestModel(6, 512, 2048, TestModel::Changes::kLittle).Push(**publisher, 1));
  proxy_->Inject({.kind = Fault::Kind::kCut, .after_bytes = Bytes() / 2});
  proxy_->SetTarget(other->port());
  EXPECT_THAT(subscriber_->Pull({}), StatusIs(absl::StatusCode::kAborted, HasSubstr("was replaced by another")));
}

// The same bytes, pushed to both.
TEST_F(ResumeTest, TheSameVersionOfAnotherServiceGoesOn) {
  auto other = StartService();
  auto publisher = Publisher::Connect(WireTo(other->address()));
  ASSERT_OK(publisher);
  ASSERT_OK(model_.Push(**publisher, 1));
  proxy_->Inject({.kind = Fault::Kind::kCut, .after_bytes = Bytes() / 2});
  proxy_->SetTarget(other->port());
  const auto pulled = subscriber_->Pull({});
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.traffic.wire_bytes, pulled->result.bytes);
  ExpectWhole(*pulled);
}

}  // namespace
}  // namespace refit

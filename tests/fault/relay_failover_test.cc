// Relays and workers that have several services above them, of which one is killed.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/relay.h"
#include "refit/subscriber.h"
#include "tests/fault/paced_proxy.h"
#include "tests/fault/watched_sink.h"
#include "tests/integration/service_process.h"
#include "tests/support/eventually.h"
#include "tests/support/fleet.h"

namespace refit {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

std::string Both(const ServiceProcess& a, const ServiceProcess& b) { return a.address() + "," + b.address(); }

class RelayFailoverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = StartService();
    ASSERT_NE(root_, nullptr);
    auto publisher = Publisher::Connect(WireTo(root_->address()));
    ASSERT_OK(publisher);
    publisher_ = *std::move(publisher);
  }

  std::unique_ptr<ServiceProcess> StartRelay(const std::string& name) const {
    return std::make_unique<ServiceProcess>(
        std::vector<std::string>{"--upstream", root_->address(), "--upstream-transport", "tcp", "--name", name});
  }

  static bool Has(const std::string& address, uint64_t version) {
    auto inspector = Inspector::Connect(WireTo(address));
    if (!inspector.ok()) return false;
    const auto versions = (*inspector)->Versions();
    if (!versions.ok()) return false;
    for (const v1::VersionSummary& one : versions->versions()) {
      if (one.version() == version && one.state() == v1::VERSION_STATE_COMMITTED) return true;
    }
    return false;
  }

  static v1::RelayStatus RelayStatusOf(const std::string& address) {
    auto inspector = Inspector::Connect(WireTo(address));
    if (!inspector.ok()) return {};
    const auto info = (*inspector)->ServerInfo();
    return info.ok() ? info->relay() : v1::RelayStatus();
  }

  void ExpectVersion(const std::string& address, uint64_t version) const {
    auto subscriber = Subscriber::Connect(WireTo(address));
    ASSERT_OK(subscriber);
    PullOptions options;
    options.version = version;
    const auto pulled = (*subscriber)->Pull(options);
    ASSERT_OK(pulled);
    for (size_t i = 0; i < pulled->tensors.size(); ++i) {
      EXPECT_TRUE(absl::MakeConstSpan(model_.Bytes(version, i)) == pulled->tensors[i].data->span()) << i;
    }
  }

  uint64_t Bytes() const {
    uint64_t bytes = 0;
    for (const TensorSpec& spec : model_.specs()) bytes += spec.ByteSize();
    return bytes;
  }

  // 81 MB.
  const TestModel model_{6, 1023, 3301};
  std::unique_ptr<RefitServer> root_;
  std::unique_ptr<Publisher> publisher_;
};

TEST_F(RelayFailoverTest, AWorkerGoesOnAtAnotherRelayWhenItsOwnIsKilled) {
  const auto first = StartRelay("first");
  const auto second = StartRelay("second");
  ASSERT_OK(model_.Push(*publisher_, 1));
  ASSERT_TRUE(Eventually([&] { return Has(first->address(), 1) && Has(second->address(), 1); }));
  auto subscriber = Subscriber::Connect(WireTo(Both(*first, *second)));
  ASSERT_OK(subscriber);
  std::optional<steady_clock::time_point> killed;
  std::optional<steady_clock::duration> pause;
  uint64_t at_the_kill = 0;
  WatchedSink sink([&](uint64_t received) {
    if (!killed.has_value() && received > Bytes() / 3) {
      at_the_kill = received;
      first->Kill();
      killed = steady_clock::now();
    } else if (killed.has_value() && !pause.has_value() && received > Bytes() - (1 << 20)) {
      pause = steady_clock::now() - *killed;
    }
  });
  const auto result = (*subscriber)->Pull({}, sink);
  ASSERT_OK(result);
  EXPECT_EQ(result->address, second->address());
  EXPECT_EQ(result->moved, 1u);
  EXPECT_EQ(sink.received, Bytes());
  EXPECT_EQ(result->traffic.wire_bytes, Bytes());
  EXPECT_LE(RelayStatusOf(second->address()).sent_bytes(), Bytes() - at_the_kill);
  for (size_t i = 0; i < sink.bytes.size(); ++i) EXPECT_TRUE(sink.bytes[i] == model_.Bytes(1, i)) << i;
  ASSERT_TRUE(pause.has_value());
  EXPECT_LT(*pause, seconds(5));
}

// All that a relay does above moves, and what came before the kill does not come again.
TEST_F(RelayFailoverTest, ARelayGoesOnAtTheNextServiceAbove) {
  const auto first = StartRelay("first");
  const auto second = StartRelay("second");
  const ServiceProcess below({"--upstream", Both(*first, *second), "--upstream-transport", "tcp", "--name", "below"});
  ASSERT_OK(model_.Push(*publisher_, 1));
  ASSERT_TRUE(Eventually([&] { return Has(below.address(), 1); }));
  auto push = (*publisher_).Open(model_.Options(2), model_.specs());
  ASSERT_OK(push);
  const size_t half = model_.specs().size() / 2;
  for (size_t i = 0; i < half; ++i) ASSERT_OK((*push)->Append(i, model_.Bytes(2, i)));
  ASSERT_TRUE(
      Eventually([&] { return RelayStatusOf(below.address()).received_tensor_bytes() >= Bytes() + Bytes() / 3; }));
  first->Kill();
  for (size_t i = half; i < model_.specs().size(); ++i) ASSERT_OK((*push)->Append(i, model_.Bytes(2, i)));
  ASSERT_OK((*push)->Commit());
  ASSERT_TRUE(Eventually([&] { return Has(below.address(), 2); }));
  ExpectVersion(below.address(), 2);
  EXPECT_EQ(RelayStatusOf(below.address()).received_bytes(), 2 * Bytes());
  // Its workers count at the root by the other way.
  auto subscriber = Subscriber::Connect(WireTo(below.address()));
  ASSERT_OK(subscriber);
  const auto presence = (*subscriber)->StartPresence("default", "w");
  EXPECT_TRUE(Eventually([&] {
    auto inspector = Inspector::Connect(WireTo(root_->address()));
    const auto workers = inspector.ok() ? (*inspector)->Workers() : inspector.status();
    if (!workers.ok()) return false;
    for (const v1::Worker& one : workers->workers()) {
      if (one.name() == "w" && one.connected()) return true;
    }
    return false;
  }));
}

TEST_F(RelayFailoverTest, ARelayPullsOverSeveralConnections) {
  PacedProxy link(root_->port(), {});
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.upstream = WireTo(link.address());
  options.upstream_streams = 3;
  const auto relay = StartServer(options);
  ASSERT_OK(relay);
  ASSERT_TRUE(Eventually([&] { return link.connections() >= 1; }));
  for (uint64_t version = 1; version <= 2; ++version) {
    ASSERT_OK(model_.Push(*publisher_, version));
    ASSERT_TRUE(Eventually([&] { return Has((*relay)->address(), version); }));
    ExpectVersion((*relay)->address(), version);
  }
  EXPECT_EQ(link.connections(), 4u);  // one for all else
}

}  // namespace
}  // namespace refit

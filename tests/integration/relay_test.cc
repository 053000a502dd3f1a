// Relays: services that serve what another service has, and workers below them.
#include "refit/relay.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/subscriber.h"
#include "refit/worker.h"
#include "tests/support/eventually.h"
#include "tests/support/files.h"
#include "tests/support/fleet.h"

namespace refit {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

ServerOptions RelayOf(const std::string& address, const std::string& name = "relay") {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.name = name;
  options.upstream = WireTo(address);
  return options;
}

std::unique_ptr<RefitServer> StartRelay(const ServerOptions& options) {
  auto relay = StartServer(options);
  EXPECT_OK(relay);
  return relay.ok() ? *std::move(relay) : nullptr;
}

// A worker that follows in a thread of its own.
class Following {
 public:
  Following(const std::string& address, const TestModel& model, const std::string& name) {
    WorkerOptions options;
    options.pull.worker = name;
    options.first_pause = milliseconds(20);
    options.keep_base = true;
    options.install = [this, &model](StagedVersion& staged) {
      EXPECT_OK(model.Check(staged));
      const std::lock_guard lock(mutex_);
      installed_.push_back(staged.version.version);
      wire_bytes_ = staged.traffic.wire_bytes;
      return absl::OkStatus();
    };
    auto worker = Worker::Create(WireTo(address), std::move(options));
    EXPECT_OK(worker);
    worker_ = *std::move(worker);
    thread_ = std::thread([this] { EXPECT_OK(worker_->Follow()); });
  }
  ~Following() {
    worker_->Stop();
    thread_.join();
  }

  absl::Status WaitFor(uint64_t version) { return worker_->WaitForVersion(version, seconds(60)); }
  std::vector<uint64_t> installed() const {
    const std::lock_guard lock(mutex_);
    return installed_;
  }
  uint64_t wire_bytes() const {
    const std::lock_guard lock(mutex_);
    return wire_bytes_;
  }
  Worker& worker() { return *worker_; }

 private:
  std::unique_ptr<Worker> worker_;
  mutable std::mutex mutex_;
  std::vector<uint64_t> installed_;
  uint64_t wire_bytes_ = 0;
  std::thread thread_;
};

class RelayTest : public ::testing::Test {
 protected:
  std::unique_ptr<Publisher> PublisherTo(const std::string& address) {
    auto publisher = Publisher::Connect(WireTo(address));
    EXPECT_OK(publisher);
    return publisher.ok() ? *std::move(publisher) : nullptr;
  }

  void Push(RefitServer& root, uint64_t version, const std::string& of = "default") {
    PublishOptions options = model_.Options(version);
    options.model = of;
    ASSERT_OK(model_.Push(*PublisherTo(root.address()), options));
  }

  static v1::GetServerInfoResponse Info(const std::string& address) {
    auto inspector = Inspector::Connect(WireTo(address));
    EXPECT_OK(inspector);
    auto info = (*inspector)->ServerInfo();
    EXPECT_OK(info);
    return info.value_or(v1::GetServerInfoResponse());
  }

  static std::vector<v1::VersionSummary> Versions(const std::string& address) {
    auto inspector = Inspector::Connect(WireTo(address));
    EXPECT_OK(inspector);
    auto versions = (*inspector)->Versions();
    EXPECT_OK(versions);
    return {versions->versions().begin(), versions->versions().end()};
  }

  static std::vector<v1::Worker> Workers(const std::string& address) {
    auto inspector = Inspector::Connect(WireTo(address));
    EXPECT_OK(inspector);
    auto workers = (*inspector)->Workers();
    EXPECT_OK(workers);
    return {workers->workers().begin(), workers->workers().end()};
  }

  static bool Has(const std::string& address, uint64_t version, v1::VersionState state = v1::VERSION_STATE_COMMITTED) {
    const std::vector<v1::VersionSummary> all = Versions(address);
    return std::any_of(all.begin(), all.end(), [&](const v1::VersionSummary& summary) {
      return summary.version() == version && summary.state() == state;
    });
  }

  TestModel model_{6, 64, 512, TestModel::Changes::kLittle};
};

TEST_F(RelayTest, ServesWhatIsThereAndWhatComes) {
  const auto root = StartService();
  Push(*root, 1);
  const auto relay = StartRelay(RelayOf(root->address()));
  Following worker(relay->address(), model_, "w");
  ASSERT_OK(worker.WaitFor(1));
  Push(*root, 2);
  ASSERT_OK(worker.WaitFor(2));
  const std::vector<v1::VersionSummary> above = Versions(root->address());
  const std::vector<v1::VersionSummary> here = Versions(relay->address());
  ASSERT_EQ(here.size(), above.size());
  for (size_t i = 0; i < above.size(); ++i) {
    EXPECT_EQ(here[i].manifest_digest(), above[i].manifest_digest());
    EXPECT_EQ(here[i].opened_at_ns(), above[i].opened_at_ns());
    EXPECT_EQ(here[i].chunk_bytes(), above[i].chunk_bytes());
    EXPECT_EQ(here[i].tensors(), above[i].tensors());
  }
}

TEST_F(RelayTest, PassesTensorsOnWhileTheTrainerStillPushes) {
  const auto root = StartService();
  const auto relay = StartRelay(RelayOf(root->address()));
  const auto publisher = PublisherTo(root->address());
  auto push = publisher->Open(model_.Options(1), model_.specs());
  ASSERT_OK(push);
  ASSERT_OK((*push)->Append(0, model_.Bytes(1, 0)));
  ASSERT_TRUE(Eventually([&] { return Has(relay->address(), 1, v1::VERSION_STATE_OPEN); }));

  class Sink final : public TensorSink {
   public:
    absl::Status Begin(const VersionSummary&, const std::vector<TensorPart>& tensors) override {
      for (const TensorPart& part : tensors) memory_.emplace_back(part.ByteSize());
      return absl::OkStatus();
    }
    absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override { return absl::MakeSpan(memory_[index]); }
    absl::Status Done(size_t) override {
      ++done;
      return absl::OkStatus();
    }
    std::atomic<int> done = 0;

   private:
    std::vector<std::vector<std::byte>> memory_;
  };
  Sink sink;
  auto subscriber = Subscriber::Connect(WireTo(relay->address()));
  ASSERT_OK(subscriber);
  std::thread pull([&] {
    PullOptions options;
    options.version = 1;
    EXPECT_OK((*subscriber)->Pull(options, sink));
  });
  EXPECT_TRUE(Eventually([&] { return sink.done == 1; }));
  for (size_t i = 1; i < model_.specs().size(); ++i) EXPECT_OK((*push)->Append(i, model_.Bytes(1, i)));
  EXPECT_OK((*push)->Commit());
  pull.join();
  EXPECT_EQ(sink.done, static_cast<int>(model_.specs().size()));
}

TEST_F(RelayTest, TakesDeltasFromAboveAndGivesThemBelow) {
  const auto root = StartService();
  Push(*root, 1);
  const auto relay = StartRelay(RelayOf(root->address()));
  Following worker(relay->address(), model_, "w");
  ASSERT_OK(worker.WaitFor(1));
  const uint64_t whole = worker.wire_bytes();
  const uint64_t before = Info(relay->address()).relay().received_bytes();
  EXPECT_EQ(before, whole);
  Push(*root, 2);
  ASSERT_OK(worker.WaitFor(2));
  EXPECT_LT(worker.wire_bytes(), whole / 10);
  EXPECT_LT(Info(relay->address()).relay().received_bytes() - before, whole / 10);
}

TEST_F(RelayTest, RefusesPushesAndNamesTheServiceAbove) {
  const auto root = StartService();
  const auto relay = StartRelay(RelayOf(root->address()));
  const auto publisher = PublisherTo(relay->address());
  EXPECT_THAT(publisher->Open(model_.Options(1), model_.specs()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("is a relay of " + root->address())));
  EXPECT_THAT(publisher->Abort("default", 1, "no"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("relay")));
  EXPECT_THAT(publisher->ReleaseInstalls("default", 1),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("relay")));
}

TEST_F(RelayTest, TheRootCountsWorkersBelowAndReleasesReachThem) {
  const auto root = StartService();
  const auto first = StartRelay(RelayOf(root->address(), "first"));
  const auto second = StartRelay(RelayOf(first->address(), "second"));
  Following near(first->address(), model_, "near");
  Following far(second->address(), model_, "far");
  const auto publisher = PublisherTo(root->address());
  PublishOptions options = model_.Options(1);
  options.hold_installs = true;
  ASSERT_OK(model_.Push(*publisher, options));
  const auto staged = publisher->AwaitWorkers(
      {.version = 1, .phase = Publisher::Await::Phase::kStaged, .workers = 2, .all = true, .timeout = seconds(60)});
  ASSERT_OK(staged);
  EXPECT_EQ(*staged, 2u);
  EXPECT_TRUE(near.installed().empty());
  EXPECT_TRUE(far.installed().empty());
  ASSERT_OK(publisher->ReleaseInstalls("default", 1));
  ASSERT_OK(publisher->AwaitWorkers({.version = 1, .workers = 2, .all = true, .timeout = seconds(60)}));
  EXPECT_THAT(near.installed(), ElementsAre(1));
  EXPECT_THAT(far.installed(), ElementsAre(1));
  const auto connected = publisher->AskConnectedWorkers("default");
  ASSERT_OK(connected);
  EXPECT_EQ(*connected, 2);
  std::map<std::string, std::string> seen;
  for (const v1::Worker& worker : Workers(root->address())) {
    const std::vector<std::string> via(worker.via().begin(), worker.via().end());
    const bool is_relay = worker.name() == "first" || worker.name() == "second";
    EXPECT_EQ(worker.has_relay(), is_relay) << worker.DebugString();
    seen[worker.name()] = absl::StrCat(absl::StrJoin(via, ">"), " depth ", worker.relay().depth());
  }
  EXPECT_THAT(seen, UnorderedElementsAre(Pair("first", " depth 1"), Pair("second", "first depth 2"),
                                         Pair("near", "first depth 0"), Pair("far", "first>second depth 0")));
}

TEST_F(RelayTest, WhoLeavesBelowIsGoneAtTheRoot) {
  const auto root = StartService();
  auto relay = StartRelay(RelayOf(root->address()));
  Push(*root, 1);
  Following worker(relay->address(), model_, "w");
  ASSERT_OK(worker.WaitFor(1));
  const auto publisher = PublisherTo(root->address());
  ASSERT_OK(publisher->AwaitWorkers({.version = 1, .timeout = seconds(60)}));
  relay->Shutdown(milliseconds(0));
  relay.reset();
  EXPECT_TRUE(Eventually([&] { return *publisher->AskConnectedWorkers("default") == 0; }));
  std::vector<std::string> gone;
  EXPECT_THAT(publisher->AwaitWorkers({.version = 1, .timeout = milliseconds(10)}, &gone),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("gone, and not counted: w")));
}

TEST_F(RelayTest, AnAbortedVersionIsAbortedBelow) {
  const auto root = StartService();
  const auto relay = StartRelay(RelayOf(root->address()));
  const auto publisher = PublisherTo(root->address());
  auto push = publisher->Open(model_.Options(1), model_.specs());
  ASSERT_OK(push);
  ASSERT_TRUE(Eventually([&] { return Has(relay->address(), 1, v1::VERSION_STATE_OPEN); }));
  EXPECT_OK((*push)->Abort("the loss is not a number"));
  ASSERT_TRUE(Eventually([&] { return Has(relay->address(), 1, v1::VERSION_STATE_ABORTED); }));
  EXPECT_THAT(Versions(relay->address()).front().abort_reason(), HasSubstr("the loss is not a number"));
  Push(*root, 1);
  EXPECT_TRUE(Eventually([&] { return Has(relay->address(), 1); }));
}

TEST_F(RelayTest, StartsBeforeTheServiceAbove) {
  const auto placeholder = StartService();
  const std::string address = placeholder->address();
  placeholder->Shutdown(milliseconds(0));
  const auto relay = StartRelay(RelayOf(address));
  EXPECT_FALSE(Info(relay->address()).relay().connected());
  ServerOptions options;
  options.listen = address;
  const auto root = StartService(options);
  Push(*root, 1);
  EXPECT_TRUE(Eventually([&] { return Has(relay->address(), 1); }));
  EXPECT_TRUE(Info(relay->address()).relay().connected());
  EXPECT_EQ(Info(relay->address()).relay().depth(), 1u);
}

// Without a spool a restarted root has nothing. The relay serves what it has, until the trainer begins anew.
TEST_F(RelayTest, FollowsARootThatWasRestartedWithoutItsMemory) {
  auto root = StartService();
  const std::string address = root->address();
  const auto relay = StartRelay(RelayOf(address));
  for (uint64_t version = 1; version <= 3; ++version) Push(*root, version);
  ASSERT_TRUE(Eventually([&] { return Has(relay->address(), 3); }));
  root.reset();
  EXPECT_TRUE(Eventually([&] { return !Info(relay->address()).relay().connected(); }));
  EXPECT_FALSE(Info(relay->address()).relay().error().empty());
  auto subscriber = Subscriber::Connect(WireTo(relay->address()));
  ASSERT_OK(subscriber);
  EXPECT_OK((*subscriber)->Pull(PullOptions()));
  ServerOptions options;
  options.listen = address;
  root = StartService(options);
  Push(*root, 2);
  ASSERT_TRUE(Eventually([&] {
    return Has(relay->address(), 2) && !Has(relay->address(), 3) &&
           Versions(relay->address()).back().manifest_digest() == Versions(address).back().manifest_digest();
  }));
}

TEST_F(RelayTest, FollowsARootThatWasRestartedWithItsSpool) {
  const ScratchFolder folder;
  ServerOptions options;
  options.spool = folder.Path("spool");
  auto root = StartService(options);
  options.listen = root->address();
  const auto relay = StartRelay(RelayOf(root->address()));
  Following worker(relay->address(), model_, "w");
  Push(*root, 1);
  ASSERT_OK(worker.WaitFor(1));
  const uint64_t whole = Info(relay->address()).relay().received_bytes();
  root->Shutdown(seconds(60));
  root.reset();
  root = StartService(options);
  Push(*root, 2);
  ASSERT_OK(worker.WaitFor(2));
  EXPECT_THAT(worker.installed(), ElementsAre(1, 2));
  // Nothing came twice.
  EXPECT_LT(Info(relay->address()).relay().received_bytes(), whole + whole / 10);
  ASSERT_OK(PublisherTo(root->address())->AwaitWorkers({.version = 2, .all = true, .timeout = seconds(60)}));
}

// Those below it keep what they have, and go on with deltas.
TEST_F(RelayTest, ARestartedRelayCostsThoseBelowItNothing) {
  const auto root = StartService();
  Push(*root, 1);
  ServerOptions options = RelayOf(root->address(), "middle");
  auto middle = StartRelay(options);
  options.listen = middle->address();
  const auto last = StartRelay(RelayOf(middle->address(), "last"));
  Following worker(last->address(), model_, "w");
  ASSERT_OK(worker.WaitFor(1));
  const uint64_t whole = Info(last->address()).relay().received_bytes();
  middle.reset();
  middle = StartRelay(options);
  ASSERT_TRUE(Eventually([&] { return Has(middle->address(), 1); }));
  Push(*root, 2);
  ASSERT_OK(worker.WaitFor(2));
  EXPECT_LT(Info(last->address()).relay().received_bytes(), whole + whole / 10);
  EXPECT_LT(worker.wire_bytes(), whole / 10);
  ASSERT_OK(PublisherTo(root->address())->AwaitWorkers({.version = 2, .all = true, .timeout = seconds(60)}));
  EXPECT_TRUE(Eventually([&] { return Info(last->address()).relay().depth() == 2; }));
}

// A root's holds end with its process. A relay's do not: it hears of the release again.
TEST_F(RelayTest, ARestartedRelayWithASpoolStillHoldsInstalls) {
  const ScratchFolder folder;
  const auto root = StartService();
  ServerOptions options = RelayOf(root->address());
  options.spool = folder.Path("spool");
  auto relay = StartRelay(options);
  options.listen = relay->address();
  const auto publisher = PublisherTo(root->address());
  PublishOptions held = model_.Options(1);
  held.hold_installs = true;
  ASSERT_OK(model_.Push(*publisher, held));
  ASSERT_TRUE(Eventually([&] { return Has(relay->address(), 1); }));
  relay->Shutdown(seconds(60));
  relay.reset();
  relay = StartRelay(options);
  ASSERT_TRUE(Versions(relay->address()).front().spooled());
  Following worker(relay->address(), model_, "w");
  ASSERT_OK(publisher->AwaitWorkers(
      {.version = 1, .phase = Publisher::Await::Phase::kStaged, .all = true, .timeout = seconds(60)}));
  EXPECT_TRUE(worker.installed().empty());
  ASSERT_OK(publisher->ReleaseInstalls("default", 1));
  ASSERT_OK(worker.WaitFor(1));
}

TEST_F(RelayTest, FindsLoops) {
  const auto placeholder = StartService();
  const std::string address = placeholder->address();
  placeholder->Shutdown(milliseconds(0));
  const auto first = StartRelay(RelayOf(address, "first"));
  ServerOptions options = RelayOf(first->address(), "second");
  options.listen = address;
  const auto second = StartRelay(options);
  EXPECT_TRUE(Eventually([&] {
    return absl::StrContains(Info(first->address()).relay().error() + Info(second->address()).relay().error(),
                             "relays are in a loop");
  }));
  const auto itself = StartService();
  const std::string own = itself->address();
  itself->Shutdown(milliseconds(0));
  options = RelayOf(own, "itself");
  options.listen = own;
  const auto alone = StartRelay(options);
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(Info(own).relay().error(), "relays are in a loop"); }));
}

TEST_F(RelayTest, NeedsTheRoleOfARelay) {
  const ScratchFolder folder;
  ServerOptions options;
  options.authorization.tokens = folder.Write(
      "tokens", "trainer trainer-0123456789abcdef\nrelay relay-0123456789abcdef\nworker worker-0123456789abcdef\n");
  const auto root = StartService(options);
  ServerOptions below = RelayOf(root->address());
  below.upstream.security.token_file = folder.Write("token", "worker-0123456789abcdef");
  {
    const auto relay = StartRelay(below);
    EXPECT_TRUE(
        Eventually([&] { return absl::StrContains(Info(relay->address()).relay().error(), "needs the role relay"); }));
  }
  folder.Write("token", "relay-0123456789abcdef");
  const auto relay = StartRelay(below);
  EXPECT_TRUE(Eventually([&] { return Info(relay->address()).relay().connected(); }));
  ChannelOptions channel = WireTo(root->address());
  channel.security.token_file = below.upstream.security.token_file;
  auto publisher = Publisher::Connect(channel);
  ASSERT_OK(publisher);
  EXPECT_THAT((*publisher)->Open(model_.Options(1), model_.specs()),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("trainer")));
}

TEST_F(RelayTest, MirrorsEveryModel) {
  const auto root = StartService();
  const auto relay = StartRelay(RelayOf(root->address()));
  Push(*root, 5, "policy");
  Push(*root, 7, "reward");
  EXPECT_TRUE(Eventually([&] { return Has(relay->address(), 5) && Has(relay->address(), 7); }));
}

TEST_F(RelayTest, RefusesWhatARelayCannotDo) {
  ServerOptions options = RelayOf("127.0.0.1:1");
  EXPECT_THAT(RefitServer::Start(options), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("refit/relay.h")));
  options.store.retain_versions = 0;
  EXPECT_THAT(StartServer(options), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--retain 0")));
}

// A version that has no room here comes once it has.
TEST_F(RelayTest, SaysWhyAVersionIsNotHere) {
  const auto root = StartService();
  Push(*root, 1);
  ServerOptions options = RelayOf(root->address());
  options.store.memory_budget_bytes = 4096;
  const auto relay = StartRelay(options);
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(Info(relay->address()).relay().missing(), "--memory"); }));
}

}  // namespace
}  // namespace refit

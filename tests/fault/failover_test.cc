// A worker that has several addresses: it goes on at the next service where it was, and returns to the nearest.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/inspector.h"
#include "refit/subscriber.h"
#include "refit/worker.h"
#include "tests/fault/fault_proxy.h"
#include "tests/fault/watched_sink.h"
#include "tests/integration/service_process.h"
#include "tests/support/eventually.h"
#include "tests/support/fleet.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

class FailoverTest : public ::testing::Test {
 protected:
  absl::Status Push(const std::string& address, uint64_t version) {
    auto publisher = Publisher::Connect(WireTo(address));
    if (!publisher.ok()) return publisher.status();
    return model_.Push(**publisher, version).status();
  }

  // A service that has these versions. Each got them separately, so only their bytes are the same.
  std::unique_ptr<ServiceProcess> StartWith(const std::vector<uint64_t>& versions,
                                            const std::vector<std::string>& flags = {}, int port = 0) {
    auto service = std::make_unique<ServiceProcess>(flags, port);
    EXPECT_NE(service->port(), 0) << service->Err();
    for (const uint64_t version : versions) EXPECT_OK(Push(service->address(), version));
    return service;
  }

  static std::unique_ptr<Subscriber> SubscriberOf(const std::string& addresses, const std::string& zone = "") {
    ChannelOptions channel = WireTo(addresses);
    channel.zone = zone;
    auto subscriber = Subscriber::Connect(channel);
    EXPECT_OK(subscriber) << addresses;
    return *std::move(subscriber);
  }

  void ExpectBytes(uint64_t version, const WatchedSink& sink) const {
    ASSERT_EQ(sink.bytes.size(), model_.specs().size());
    for (size_t i = 0; i < sink.bytes.size(); ++i) EXPECT_TRUE(sink.bytes[i] == model_.Bytes(version, i)) << i;
  }

  uint64_t Bytes() const {
    uint64_t bytes = 0;
    for (const TensorSpec& spec : model_.specs()) bytes += spec.ByteSize();
    return bytes;
  }

  // Payload bytes that the service has sent to this worker.
  static uint64_t SentTo(const std::string& address, const std::string& worker) {
    auto inspector = Inspector::Connect(WireTo(address));
    if (!inspector.ok()) return 0;
    const auto workers = (*inspector)->Workers("default");
    if (!workers.ok()) return 0;
    uint64_t sent = 0;
    for (const v1::Worker& one : workers->workers()) {
      if (one.name() == worker) sent += one.total_sent_bytes();
    }
    return sent;
  }

  // 24 MB in tensors of several chunks.
  const TestModel model_{6, 512, 2048};
};

std::string Both(const ServiceProcess& a, const ServiceProcess& b) { return a.address() + "," + b.address(); }

TEST_F(FailoverTest, AServiceThatIsKilledAmidATransferIsLeftAndNothingComesTwice) {
  const auto first = StartWith({1});
  const auto second = StartWith({1});
  const auto subscriber = SubscriberOf(Both(*first, *second));
  std::optional<steady_clock::time_point> killed;
  std::optional<steady_clock::duration> pause;
  uint64_t at_the_kill = 0;
  WatchedSink sink([&](uint64_t received) {
    if (!killed.has_value() && received > Bytes() / 3) {
      at_the_kill = received;
      first->Kill();
      killed = steady_clock::now();
    } else if (killed.has_value() && !pause.has_value() && received > Bytes() - (1 << 20)) {
      pause = steady_clock::now() - *killed;  // at least the last chunk is the second service's
    }
  });
  PullOptions options;
  options.worker = "w";
  const auto result = subscriber->Pull(options, sink);
  ASSERT_OK(result);
  EXPECT_EQ(result->address, second->address());
  EXPECT_EQ(result->moved, 1u);
  EXPECT_EQ(result->resumed, 1u);
  EXPECT_EQ(sink.begun, 1);
  EXPECT_EQ(sink.received, Bytes());
  EXPECT_EQ(result->traffic.wire_bytes, Bytes());
  EXPECT_LE(SentTo(second->address(), "w"), Bytes() - at_the_kill);
  ExpectBytes(1, sink);
  ASSERT_TRUE(pause.has_value());
  EXPECT_LT(*pause, seconds(5));
}

TEST_F(FailoverTest, AVersionThatIsStillPushedGoesOnAtAnotherAddressOfTheSameService) {
  const auto service = StartService();
  FaultProxy first(service->port());
  auto publisher = Publisher::Connect(WireTo(service->address()));
  ASSERT_OK(publisher);
  auto push = (*publisher)->Open(model_.Options(1), model_.specs());
  ASSERT_OK(push);
  const auto append = [&](size_t from, size_t to) {
    for (size_t i = from; i < to; ++i) ASSERT_OK((*push)->Append(i, model_.Bytes(1, i)));
  };
  append(0, 3);
  const auto subscriber = SubscriberOf(first.address() + "," + service->address());
  first.Inject({.kind = Fault::Kind::kCut, .after_bytes = Bytes() / 4});
  std::thread trainer([&] {
    EXPECT_TRUE(Eventually([&] { return first.struck() == 1; }));
    append(3, 6);
    EXPECT_OK((*push)->Commit());
  });
  WatchedSink sink([](uint64_t) {});
  PullOptions options;
  options.version = 1;
  const auto result = subscriber->Pull(options, sink);
  trainer.join();
  ASSERT_OK(result);
  EXPECT_EQ(result->address, service->address());
  EXPECT_EQ(result->traffic.wire_bytes, Bytes());
  ExpectBytes(1, sink);
}

TEST_F(FailoverTest, OtherBytesUnderTheSameNumberAreNotMixedIn) {
  const auto first = StartWith({1});
  const auto second = StartWith({});
  const TestModel little{6, 512, 2048, TestModel::Changes::kLittle};
  auto publisher = Publisher::Connect(WireTo(second->address()));
  ASSERT_OK(publisher);
  ASSERT_OK(little.Push(**publisher, 1));
  const auto subscriber = SubscriberOf(Both(*first, *second));
  bool killed = false;
  WatchedSink sink([&](uint64_t received) {
    if (received > Bytes() / 3 && !std::exchange(killed, true)) first->Kill();
  });
  EXPECT_THAT(subscriber->Pull({}, sink), StatusIs(absl::StatusCode::kAborted, HasSubstr("was replaced by another")));
}

TEST_F(FailoverTest, AServiceThatEndsInOrderIsLeftToo) {
  const auto first = StartWith({1});
  const auto second = StartWith({1});
  const auto subscriber = SubscriberOf(Both(*first, *second));
  std::thread end;
  WatchedSink sink([&](uint64_t received) {
    if (received > Bytes() / 3 && !end.joinable()) end = std::thread([&] { first->Terminate(); });
  });
  const auto result = subscriber->Pull({}, sink);
  end.join();
  ASSERT_OK(result);
  EXPECT_EQ(result->traffic.wire_bytes, Bytes());
  const auto later = subscriber->Pull({});
  ASSERT_OK(later);
  EXPECT_EQ(later->result.address, second->address());
}

TEST_F(FailoverTest, AServiceThatIsTooBusyIsPassedBy) {
  const auto busy = StartWith({1}, {"--max-pulls", "0"});
  const auto free = StartWith({1});
  const auto pulled = SubscriberOf(Both(*busy, *free))->Pull({});
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.address, free->address());
  EXPECT_EQ(pulled->result.moved, 1u);
  EXPECT_EQ(pulled->result.resumed, 0u);
}

TEST_F(FailoverTest, IfAllAreTooBusyTheErrorNamesThemAll) {
  const auto one = StartWith({1}, {"--max-pulls", "0"});
  const auto other = StartWith({1}, {"--max-pulls", "0"});
  EXPECT_THAT(SubscriberOf(Both(*one, *other))->Pull({}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr(one->address() + ": the service serves 0 pulls"),
                             HasSubstr(other->address() + ": the service serves 0 pulls"))));
}

TEST_F(FailoverTest, AServiceWithoutTheVersionIsPassedBy) {
  const auto behind = StartWith({1});
  const auto ahead = StartWith({1, 2});
  const auto subscriber = SubscriberOf(Both(*behind, *ahead));
  PullOptions options;
  options.version = 2;
  const auto pulled = subscriber->Pull(options);
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.address, ahead->address());
  options.version = 3;
  EXPECT_THAT(subscriber->Pull(options),
              StatusIs(absl::StatusCode::kNotFound, AllOf(HasSubstr(behind->address()), HasSubstr(ahead->address()))));
}

TEST_F(FailoverTest, AnOlderNewestVersionIsNotTakenForTheNewest) {
  const auto behind = StartWith({1});
  const auto ahead = StartWith({1, 2});
  const auto subscriber = SubscriberOf(Both(*ahead, *behind));
  ASSERT_OK(subscriber->Pull({}));
  ahead->Kill();
  EXPECT_THAT(subscriber->Pull({}),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr(behind->address() + ": the service is behind: its newest is version 1"),
                             HasSubstr("no connection to " + ahead->address()))));
  // Nobody has it any more, so the next pull takes what there is.
  const auto pulled = subscriber->Pull({});
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.version.version, 1u);
}

TEST_F(FailoverTest, IfAllAreDownTheErrorNamesThemAll) {
  const auto one = StartWith({1});
  const auto other = StartWith({1});
  const auto subscriber = SubscriberOf(Both(*one, *other));
  one->Kill();
  other->Kill();
  PullOptions options;
  options.resume_within = seconds(3);
  const auto names_both = AllOf(HasSubstr("no connection to " + one->address() + ": "),
                                HasSubstr("no connection to " + other->address() + ": "));
  EXPECT_THAT(subscriber->Pull(options), StatusIs(absl::StatusCode::kUnavailable, names_both));
  ChannelOptions channel = WireTo(Both(*one, *other));
  channel.connect_timeout = milliseconds(500);
  EXPECT_THAT(Subscriber::Connect(channel), StatusIs(absl::StatusCode::kUnavailable, names_both));
}

TEST_F(FailoverTest, TheFirstPullNeedsOnlyOneOfThem) {
  const auto down = StartWith({});
  const auto up = StartWith({1});
  down->Kill();
  const auto pulled = SubscriberOf(Both(*down, *up))->Pull({});
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.address, up->address());
  EXPECT_EQ(pulled->result.moved, 0u);
}

// A listener that nobody accepts from: connecting neither succeeds nor fails.
class SilentListener {
 public:
  SilentListener() : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(socket_, 1), 0);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~SilentListener() { close(socket_); }
  SilentListener(const SilentListener&) = delete;
  SilentListener& operator=(const SilentListener&) = delete;

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

 private:
  int socket_;
  int port_ = 0;
};

TEST_F(FailoverTest, AnAddressThatOnlyKeepsSilentIsPassedBy) {
  const SilentListener silent;
  const auto service = StartWith({1});
  const auto pulled = SubscriberOf(silent.address() + "," + service->address())->Pull({});
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.address, service->address());
}

TEST_F(FailoverTest, WhatCameDamagedComesFromTheNextService) {
  const auto service = StartWith({1});
  FaultProxy first(service->port());
  const auto subscriber = SubscriberOf(first.address() + "," + service->address());
  first.Inject({.kind = Fault::Kind::kFlip, .after_bytes = Bytes() / 2});
  WatchedSink sink([](uint64_t) {});
  const auto result = subscriber->Pull({}, sink);
  ASSERT_OK(result);
  EXPECT_EQ(result->address, service->address());
  EXPECT_EQ(sink.received, Bytes());
  ExpectBytes(1, sink);
}

TEST_F(FailoverTest, TheServiceOfTheOwnZoneComesFirst) {
  const auto a = StartWith({1}, {"--zone", "a"});
  const auto b = StartWith({1}, {"--zone", "b"});
  const auto address_of_pull = [&](const std::string& zone) {
    const auto pulled = SubscriberOf(Both(*a, *b), zone)->Pull({});
    return pulled.ok() ? pulled->result.address : pulled.status().ToString();
  };
  EXPECT_EQ(address_of_pull("a"), a->address());
  EXPECT_EQ(address_of_pull("b"), b->address());
  EXPECT_EQ(address_of_pull("c"), a->address());
  EXPECT_EQ(address_of_pull(""), a->address());
}

TEST_F(FailoverTest, NewPullsReturnToTheNearestOnceItIsBack) {
  auto near = StartWith({1}, {"--zone", "here"});
  const auto far = StartWith({1}, {"--zone", "there"});
  const int port = near->port();
  const auto subscriber = SubscriberOf(Both(*far, *near), "here");
  const auto address_of_pull = [&] {
    const auto pulled = subscriber->Pull({});
    return pulled.ok() ? pulled->result.address : pulled.status().ToString();
  };
  EXPECT_EQ(address_of_pull(), near->address());
  near->Kill();
  EXPECT_EQ(address_of_pull(), far->address());
  near = StartWith({1}, {"--zone", "here"}, port);
  EXPECT_TRUE(Eventually([&] { return address_of_pull() == near->address(); }));
}

TEST_F(FailoverTest, AnyAddressOfANameServes) {
  const TemporaryFolder folder;
  const std::string hosts = folder.Path("hosts");
  ASSERT_EQ(setenv("CARES_HOSTS", hosts.c_str(), 1), 0);
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  auto first = StartService(options);
  options.listen = absl::StrCat("127.0.0.2:", first->port());
  auto second = StartService(options);
  for (const auto& service : {first.get(), second.get()}) ASSERT_OK(Push(service->address(), 1));
  std::ofstream(hosts) << "127.0.0.1 relays.test\n127.0.0.2 relays.test\n";
  const int port = first->port();
  const std::string address = absl::StrCat("dns:///relays.test:", port);
  const auto subscriber = SubscriberOf(address);
  auto pulled = subscriber->Pull({});
  ASSERT_OK(pulled);
  const bool was_first = pulled->result.address == first->address();
  const std::string other = was_first ? second->address() : first->address();
  (was_first ? first : second).reset();
  pulled = subscriber->Pull({});
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.address, other);

  // The name leads elsewhere, as when pods are made anew.
  options.listen = absl::StrCat("127.0.0.3:", port);
  const auto third = StartService(options);
  ASSERT_OK(Push(third->address(), 1));
  std::ofstream(hosts) << "127.0.0.3 relays.test\n";
  first.reset();
  second.reset();
  pulled = subscriber->Pull({});
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.address, third->address());

  unsetenv("CARES_HOSTS");
}

TEST_F(FailoverTest, ANameThatIsNotFoundIsNamed) {
  const TemporaryFolder folder;
  const std::string hosts = folder.Path("hosts");
  ASSERT_EQ(setenv("CARES_HOSTS", hosts.c_str(), 1), 0);
  std::ofstream(hosts) << "127.0.0.1 relays.test\n";
  ChannelOptions channel = WireTo("dns:///nowhere.invalid:1,dns:///relays.test:1");
  channel.connect_timeout = milliseconds(500);
  EXPECT_THAT(Subscriber::Connect(channel),
              StatusIs(absl::StatusCode::kUnavailable, AllOf(HasSubstr("the name 'nowhere.invalid' was not found"),
                                                             HasSubstr("no connection to 127.0.0.1:1"))));
  unsetenv("CARES_HOSTS");
}

TEST_F(FailoverTest, APushGoesToOneService) {
  EXPECT_THAT(Publisher::Connect(WireTo("127.0.0.1:1,127.0.0.1:2")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("a push goes to the one")));
}

TEST_F(FailoverTest, AListNamesEachServiceOnce) {
  EXPECT_THAT(Subscriber::Connect(WireTo("127.0.0.1:1,127.0.0.1:1")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'127.0.0.1:1' is listed twice")));
  EXPECT_THAT(Subscriber::Connect(WireTo("127.0.0.1:1,")), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Subscriber::Connect(WireTo("127.0.0.1:1,nowhere")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'nowhere' names no port")));
}

TEST_F(FailoverTest, CancelEndsAPullThatFindsNoService) {
  const auto one = StartWith({1});
  const auto other = StartWith({1});
  const auto subscriber = SubscriberOf(Both(*one, *other));
  one->Kill();
  other->Kill();
  absl::Status status;
  std::thread pull([&] { status = subscriber->Pull({}).status(); });
  subscriber->Cancel();
  pull.join();
  EXPECT_THAT(status.code(), AnyOf(absl::StatusCode::kCancelled, absl::StatusCode::kUnavailable));
}

TEST_F(FailoverTest, WhatWasMappedStaysWhenItsServiceIsGone) {
  const auto first = StartWith({1});
  const auto second = StartWith({1});
  ChannelOptions channel;
  channel.address = Both(*first, *second);
  channel.transport = Transport::kSharedMemory;
  auto subscriber = Subscriber::Connect(channel);
  ASSERT_OK(subscriber);
  const auto before = (*subscriber)->Pull({});
  ASSERT_OK(before);
  EXPECT_GT(before->result.traffic.mapped_bytes, 0u);
  first->Kill();
  const auto after = (*subscriber)->Pull({});
  ASSERT_OK(after);
  EXPECT_EQ(after->result.address, second->address());
  EXPECT_GT(after->result.traffic.mapped_bytes, 0u);
  for (size_t i = 0; i < before->tensors.size(); ++i) {
    EXPECT_TRUE(before->tensors[i].data->span() == after->tensors[i].data->span()) << i;
  }
}

// What a worker's engine has, and how many errors it was told.
struct Followed {
  std::atomic<uint64_t> installed{0};
  std::atomic<uint64_t> moved{0};
  std::unique_ptr<Worker> worker;
  std::thread thread;

  ~Followed() {
    if (worker != nullptr) worker->Stop();
    if (thread.joinable()) thread.join();
  }
};

class FollowTest : public FailoverTest {
 protected:
  void Follow(const std::string& addresses, Followed& followed, const std::string& zone = "") {
    ChannelOptions channel = WireTo(addresses);
    channel.zone = zone;
    channel.keepalive_interval = keepalive_;
    channel.keepalive_timeout = keepalive_;
    WorkerOptions options;
    options.pull.worker = "w";
    options.first_pause = milliseconds(20);
    options.accept_new_run = true;
    options.install = [&](StagedVersion& staged) {
      EXPECT_OK(model_.Check(staged));
      EXPECT_GT(staged.version.version, followed.installed);
      followed.moved += staged.moved;
      followed.installed = staged.version.version;
      return absl::OkStatus();
    };
    auto worker = Worker::Create(channel, std::move(options));
    ASSERT_OK(worker);
    followed.worker = *std::move(worker);
    followed.thread = std::thread([&followed] { EXPECT_OK(followed.worker->Follow()); });
  }

  milliseconds keepalive_ = ChannelOptions().keepalive_interval;

  // Whether the service sees the worker, with this version in use.
  static bool Sees(const ServiceProcess& service, uint64_t version) {
    auto inspector = Inspector::Connect(service.Channel(Transport::kWire));
    if (!inspector.ok()) return false;
    const auto workers = (*inspector)->Workers("default");
    if (!workers.ok()) return false;
    for (const v1::Worker& one : workers->workers()) {
      if (one.name() == "w" && one.connected() && one.installed_version() == version) return true;
    }
    return false;
  }
};

TEST_F(FollowTest, AFollowerGoesOnAtTheNextService) {
  const auto first = StartWith({1});
  const auto second = StartWith({1});
  Followed followed;
  Follow(Both(*first, *second), followed);
  ASSERT_TRUE(Eventually([&] { return Sees(*first, 1); }));
  first->Kill();
  EXPECT_TRUE(Eventually([&] { return Sees(*second, 1); }));
  ASSERT_OK(Push(second->address(), 2));
  EXPECT_TRUE(Eventually([&] { return Sees(*second, 2); }));
}

TEST_F(FollowTest, AFollowerLeavesAServiceThatHangs) {
  const auto first = StartWith({1});
  const auto second = StartWith({1});
  Followed followed;
  keepalive_ = milliseconds(500);
  Follow(Both(*first, *second), followed);
  ASSERT_TRUE(Eventually([&] { return Sees(*first, 1); }));
  first->process().Signal(SIGSTOP);
  EXPECT_TRUE(Eventually([&] { return Sees(*second, 1); }));
  first->process().Signal(SIGCONT);
}

TEST_F(FollowTest, AFollowerThatIsIdleReturnsToTheNearest) {
  auto near = StartWith({1}, {"--zone", "here"});
  const auto far = StartWith({1}, {"--zone", "there"});
  const int port = near->port();
  Followed followed;
  Follow(Both(*far, *near), followed, "here");
  ASSERT_TRUE(Eventually([&] { return Sees(*near, 1); }));
  near->Kill();
  ASSERT_TRUE(Eventually([&] { return Sees(*far, 1); }));
  near = StartWith({1}, {"--zone", "here"}, port);
  EXPECT_TRUE(Eventually([&] { return Sees(*near, 1); }));
  EXPECT_EQ(followed.installed, 1u);
}

// A service that does not have the version yet must not make the worker believe that it is of another run.
TEST_F(FollowTest, AServiceThatIsBehindDoesNotMakeAVersionForeign) {
  const auto behind = StartWith({1});
  const auto ahead = StartWith({1, 2});
  const auto subscriber = SubscriberOf(Both(*behind, *ahead));
  WorkerReport report;
  report.model = "default";
  report.worker = "w";
  report.version = 2;
  report.phase = WorkerPhase::kInstalled;
  const auto foreign = subscriber->Report(report);
  ASSERT_OK(foreign);
  EXPECT_FALSE(*foreign);
  report.version = 3;
  const auto unknown = subscriber->Report(report);
  ASSERT_OK(unknown);
  EXPECT_TRUE(*unknown);
}

TEST_F(FollowTest, AWatchGoesOnAtTheNextService) {
  const auto first = StartWith({1});
  const auto second = StartWith({1});
  const auto subscriber = SubscriberOf(Both(*first, *second));
  std::atomic<uint64_t> newest = 0;
  absl::Status status;
  std::thread watch([&] {
    status = subscriber->Watch({}, [&](const VersionSummary& version) {
      newest = version.version;
      return version.version < 2 || version.state != VersionState::kCommitted;
    });
  });
  EXPECT_TRUE(Eventually([&] { return newest == 1; }));
  first->Kill();
  ASSERT_OK(Push(second->address(), 2));
  watch.join();
  EXPECT_OK(status);
}

}  // namespace
}  // namespace refit

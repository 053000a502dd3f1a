// Real processes under a wall clock that steps: no interval of theirs may change.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "tests/fault/wall_clock_steps.h"
#include "tests/integration/service_process.h"
#include "tests/support/eventually.h"
#include "tests/support/sanitized.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_model.h"

namespace refit {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;

// What time synchronisation does to a machine that comes up with a wrong clock, either way.
constexpr int64_t kSteps[] = {-3600, 86'400};
// Longer than it takes to notice a step, on a machine that is busy.
constexpr seconds kSlack{8};

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

size_t Count(const std::string& log, const std::string& word) {
  size_t count = 0;
  for (size_t at = log.find(word); at != std::string::npos; at = log.find(word, at + 1)) ++count;
  return count;
}

class ClockTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "a sanitizer's own library must be loaded first, and checks these calls";
  }
  void StartService(const std::vector<std::string>& more_flags) {
    std::vector<std::string> flags = {"--memory", "256MiB"};
    flags.insert(flags.end(), more_flags.begin(), more_flags.end());
    service_ = std::make_unique<ServiceProcess>(flags, 0, Subprocess::Surroundings{.by = clock_.Starter()});
    ASSERT_NE(service_->port(), 0) << service_->Err();
  }
  std::unique_ptr<Publisher> Connect() const {
    auto publisher = Publisher::Connect(service_->Channel());
    EXPECT_TRUE(publisher.ok()) << publisher.status();
    return *std::move(publisher);
  }
  v1::VersionSummary Summary(uint64_t version) const {
    const auto versions = (*Inspector::Connect(service_->Channel()))->Versions();
    for (const v1::VersionSummary& summary : versions->versions()) {
      if (summary.version() == version) return summary;
    }
    return {};
  }
  // Both stages of an interval that begins before the step and goes on after it.
  void Step() { clock_.Set(GetParam()); }

  WallClockSteps clock_;
  std::unique_ptr<ServiceProcess> service_;
  const TestModel model_{2, 16, 16};
};

TEST_P(ClockTest, ALivePushIsNotSilentAndASilentOneEndsInTime) {
  StartService({"--push-idle-timeout", "3"});
  const auto publisher = Connect();
  auto live = publisher->Open(model_.Options(1), model_.specs());
  ASSERT_OK(live);
  ASSERT_OK((*live)->Append(0, model_.Bytes(1, 0)));
  Step();
  std::this_thread::sleep_for(milliseconds(500));  // the trainer's own pause
  ASSERT_OK((*live)->Append(1, model_.Bytes(1, 1)));
  ASSERT_OK((*live)->Commit());
  EXPECT_THAT(static_cast<double>(Summary(1).elapsed_ns()) / 1e9, AllOf(Ge(0.5), Le(Seconds(kSlack))));

  clock_.Set(0);
  auto silent = publisher->Open(model_.Options(2), model_.specs());
  ASSERT_OK(silent);
  const Clock::time_point begin = Clock::now();
  Step();
  EXPECT_TRUE(Eventually([&] { return Summary(2).state() == v1::VERSION_STATE_ABORTED; }, seconds(3) + kSlack));
  EXPECT_GE(Clock::now() - begin, milliseconds(2500));
  EXPECT_THAT(Summary(2).abort_reason(),
              AllOf(HasSubstr("--push-idle-timeout"), HasSubstr("3s"), HasSubstr("refit.serve(push_idle_timeout=")));
}

TEST_P(ClockTest, RanksAndWorkersAreAwaitedForAsLongAsWasAsked) {
  StartService({"--rank-timeout", "2"});
  const auto publisher = Connect();
  PublishOptions options = model_.Options(1);
  options.world = 2;
  std::vector<TensorPart> parts;
  for (const TensorSpec& spec : model_.specs()) parts.push_back({spec, WholeBox(spec.shape)});
  const Clock::time_point begin = Clock::now();
  auto awaited = std::async(std::launch::async, [&] {
    return publisher->AwaitWorkers({.version = 7, .timeout = milliseconds(1500)}).status();
  });
  auto alone = std::async(std::launch::async, [&] { return publisher->OpenShards(options, parts).status(); });
  std::this_thread::sleep_for(milliseconds(300));  // both are on their way
  Step();
  EXPECT_THAT(awaited.get(), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(Seconds(Clock::now() - begin), AllOf(Ge(1.4), Le(1.5 + Seconds(kSlack))));
  EXPECT_THAT(alone.get(), StatusIs(absl::StatusCode::kDeadlineExceeded,
                                    AllOf(HasSubstr("--rank-timeout"), HasSubstr("refit.serve(rank_timeout="))));
  EXPECT_THAT(Seconds(Clock::now() - begin), AllOf(Ge(1.9), Le(2 + Seconds(kSlack))));
}

// The service's word, as keepalive gives it, is gRPC's own doing.
TEST_P(ClockTest, APeerThatHangsIsDroppedInTime) {
  StartService({"--peer-timeout", "2", "--log-level", "warning"});
  TemporaryFolder folder;
  const auto trainer = Subprocess::Start("fault-peer", {"trainer", service_->address(), folder.Path("log"), "1", "1"});
  ASSERT_TRUE(Eventually([&] { return ReadFile(folder.Path("log")).find("commit") != std::string::npos; }));
  // Stopped in the middle of a version, sooner or later.
  ASSERT_TRUE(Eventually([&] {
    trainer->Signal(SIGSTOP);
    std::this_thread::sleep_for(milliseconds(200));  // what it had sent is handled
    if ((*Inspector::Connect(service_->Channel()))->ServerInfo()->open_pushes() > 0) return true;
    trainer->Signal(SIGCONT);
    return false;
  }));
  Step();
  const Clock::time_point begin = Clock::now();
  const auto gone = [&] { return (*Inspector::Connect(service_->Channel()))->ServerInfo()->open_pushes() == 0; };
  EXPECT_TRUE(Eventually(gone, seconds(2) + kSlack));
  EXPECT_GE(Clock::now() - begin, milliseconds(500));
}

TEST_P(ClockTest, AServiceDoesNotEndAndCountsItsOwnTime) {
  StartService({"--self-check", "0.5", "--grace", "1"});
  const auto publisher = Connect();
  auto open = publisher->Open(model_.Options(1), model_.specs());  // holds up its end
  ASSERT_OK(open);
  Step();
  std::this_thread::sleep_for(milliseconds(1500));  // so long that its check of itself would have failed
  ASSERT_TRUE(service_->process().IsRunning());
  EXPECT_LE((*Inspector::Connect(service_->Channel()))->ServerInfo()->uptime_seconds(), 60u);
  EXPECT_THAT(static_cast<double>(Summary(1).elapsed_ns()) / 1e9, AllOf(Ge(1.4), Le(2 + Seconds(kSlack))));
  clock_.Set(0);
  const Clock::time_point begin = Clock::now();
  service_->process().Signal(SIGTERM);
  Step();
  EXPECT_EQ(service_->process().Wait(kSlack + seconds(2)).code, 0);
  EXPECT_LE(Seconds(Clock::now() - begin), 2 + Seconds(kSlack));
}

// SIGSTOP, `docker pause` and frozen machines stop a service without a word; the steady clock goes on.
TEST(StoppedService, HoldsNoneOfThatTimeAgainstItsTrainers) {
  ServiceProcess service({"--memory", "256MiB", "--push-idle-timeout", "2", "--rank-timeout", "2"});
  auto publisher = Publisher::Connect(service.Channel());
  ASSERT_OK(publisher);
  const TestModel model(4, 16, 16);
  auto push = (*publisher)->Open(model.Options(1), model.specs());
  ASSERT_OK(push);
  ASSERT_OK((*push)->Append(0, model.Bytes(1, 0)));
  const auto stop = [&] {
    service.process().Signal(SIGSTOP);
    std::this_thread::sleep_for(seconds(4));
    service.process().Signal(SIGCONT);
    std::this_thread::sleep_for(milliseconds(500));  // its alarms have rung
  };
  stop();
  ASSERT_OK((*push)->Append(1, model.Bytes(1, 1)));
  std::this_thread::sleep_for(seconds(1));
  ASSERT_OK((*push)->Append(2, model.Bytes(1, 2)));
  std::this_thread::sleep_for(milliseconds(1500));  // the next alarm is for the end of this very silence
  stop();
  ASSERT_OK((*push)->Append(3, model.Bytes(1, 3)));
  EXPECT_OK((*push)->Commit());
}

// The clients' side: trainer, worker and command line under the clock, against a service that ends and comes back.
TEST_P(ClockTest, ClientsGoOn) {
  service_ = std::make_unique<ServiceProcess>(std::vector<std::string>{"--memory", "256MiB", "--peer-timeout", "2"});
  TemporaryFolder folder;
  const Subprocess::Surroundings stepping{.by = clock_.Starter()};
  const auto worker =
      Subprocess::Start("fault-peer", {"worker", service_->address(), folder.Path("w"), "w", "wire"}, stepping);
  const auto trainer =
      Subprocess::Start("fault-peer", {"trainer", service_->address(), folder.Path("t"), "1", "1"}, stepping);
  const auto installs = [&] { return Count(ReadFile(folder.Path("w")), "install"); };
  ASSERT_TRUE(Eventually([&] { return installs() > 2; }));
  const auto await =
      Subprocess::Start("refit", {"await", "999999", "--timeout", "2", "-s", service_->address()}, stepping);
  const auto watch = Subprocess::Start("refit", {"watch", "--timeout", "2", "-s", service_->address()}, stepping);
  const Clock::time_point begin = Clock::now();
  std::this_thread::sleep_for(milliseconds(500));  // both have begun
  Step();
  size_t before = installs();
  EXPECT_TRUE(Eventually([&] { return installs() > before + 2; }, kSlack));
  EXPECT_EQ(await->Wait(kSlack + seconds(3)).code, 5);
  (void)watch->Wait(kSlack + seconds(3));
  EXPECT_THAT(Seconds(Clock::now() - begin), AllOf(Ge(1.9), Le(2 + Seconds(kSlack))));

  // While it is gone, the clock steps once more: they try again all the same.
  const int port = service_->port();
  service_->Kill();
  clock_.Set(0);
  std::this_thread::sleep_for(milliseconds(300));  // they have noticed
  Step();
  service_ = std::make_unique<ServiceProcess>(std::vector<std::string>{"--memory", "256MiB"}, port);
  ASSERT_EQ(service_->port(), port) << service_->Err();
  before = installs();
  EXPECT_TRUE(Eventually([&] { return installs() > before; }, kSlack + kSlack));

  // A service that hangs is noticed, and gone on with.
  service_->process().Signal(SIGSTOP);
  clock_.Set(0);
  const auto status =
      Subprocess::Start("refit", {"status", "--connect-timeout", "2", "-s", service_->address()}, stepping);
  std::this_thread::sleep_for(milliseconds(200));  // it waits for an answer
  Step();
  EXPECT_NE(status->Wait(seconds(30)).code, 137) << "refit status hangs";
  service_->process().Signal(SIGCONT);
  before = installs();
  EXPECT_TRUE(Eventually([&] { return installs() > before; }, kSlack + kSlack));
}

// A clock that was wrong for a moment, while somebody went to sleep by it: no look at it from time to time sees that.
TEST(MomentaryStep, HoldsNobodyUp) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's own library must be loaded first, and checks these calls";
  WallClockSteps clock;
  auto service = std::make_unique<ServiceProcess>(std::vector<std::string>{"--memory", "256MiB"});
  TemporaryFolder folder;
  const Subprocess::Surroundings stepping{.by = clock.Starter()};
  const auto worker =
      Subprocess::Start("fault-peer", {"worker", service->address(), folder.Path("w"), "w", "wire"}, stepping);
  const auto trainer =
      Subprocess::Start("fault-peer", {"trainer", service->address(), folder.Path("t"), "1", "1"}, stepping);
  const auto installed = [&] { return Count(ReadFile(folder.Path("w")), "install"); };
  ASSERT_TRUE(Eventually([&] { return installed() > 2; }));
  const int port = service->port();
  service->Kill();
  const Clock::time_point end = Clock::now() + seconds(4);
  while (Clock::now() < end) {
    clock.Set(86'400);
    std::this_thread::sleep_for(milliseconds(30));
    clock.Set(0);
    std::this_thread::sleep_for(milliseconds(50));
  }
  service = std::make_unique<ServiceProcess>(std::vector<std::string>{"--memory", "256MiB"}, port);
  ASSERT_EQ(service->port(), port) << service->Err();
  const size_t before = installed();
  EXPECT_TRUE(Eventually([&] { return installed() > before; }, kSlack + kSlack)) << worker->Err();
}

INSTANTIATE_TEST_SUITE_P(Steps, ClockTest, ::testing::ValuesIn(kSteps), [](const auto& step) {
  return absl::StrCat(step.param < 0 ? "Back" : "Forth", std::abs(step.param));
});

}  // namespace
}  // namespace refit

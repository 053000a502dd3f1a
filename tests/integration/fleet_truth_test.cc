// What the fleet is told is true: a worker is one life, what it has is of this run by number and digest, and who is
// gone does not count.
#include <gtest/gtest.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/subscriber.h"
#include "refit/worker.h"
#include "tests/support/eventually.h"
#include "tests/support/fleet.h"
#include "tests/support/holds.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

using absl::StatusCode;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr seconds kPatience{20};
constexpr milliseconds kShort{50};

// A worker's process: its engine, which follows on a thread once told to.
class Engine {
 public:
  explicit Engine(const std::string& address, WorkerOptions options = {}) {
    if (options.pull.worker.empty()) options.pull.worker = "w0";
    options.first_pause = milliseconds(20);
    options.install = [this](StagedVersion& staged) -> absl::Status {
      const std::lock_guard lock(mutex_);
      if (refuses_) return absl::InternalError("the engine is busy");
      installed_.push_back(staged.version.version);
      return absl::OkStatus();
    };
    options.on_error = [this](const absl::Status& status) {
      const std::lock_guard lock(mutex_);
      errors_.emplace_back(status.message());
    };
    auto worker = Worker::Create(WireTo(address), std::move(options));
    EXPECT_OK(worker);
    worker_ = *std::move(worker);
  }
  ~Engine() {
    worker_->Stop();
    if (thread_.joinable()) thread_.join();
  }

  void Follow() {
    thread_ = std::thread([this] { EXPECT_OK(worker_->Follow()); });
  }
  void Refuse() {
    const std::lock_guard lock(mutex_);
    refuses_ = true;
  }
  Worker& worker() { return *worker_; }
  std::vector<uint64_t> installed() {
    const std::lock_guard lock(mutex_);
    return installed_;
  }
  std::vector<std::string> ErrorsWith(const std::string& text) {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> found;
    for (const std::string& error : errors_) {
      if (error.find(text) != std::string::npos) found.push_back(error);
    }
    return found;
  }

 private:
  std::mutex mutex_;
  bool refuses_ = false;
  std::vector<uint64_t> installed_;
  std::vector<std::string> errors_;
  std::unique_ptr<Worker> worker_;
  std::thread thread_;
};

class FleetTruth : public ::testing::Test {
 protected:
  void SetUp() override { Restart(); }

  // At the same address, with no memory but the spool's.
  void Restart() {
    publisher_.reset();
    const std::string address = server_ != nullptr ? server_->address() : "";
    server_.reset();
    ServerOptions options;
    if (!address.empty()) options.listen = address;
    options.spool = spool_;
    server_ = StartService(options);
    ASSERT_NE(server_, nullptr);
    publisher_ = *Publisher::Connect(WireTo(server_->address()));
  }

  void Push(uint64_t version, uint64_t epoch = 0, const TestModel& model = TestModel(2, 4, 4)) {
    PublishOptions options = model.Options(version);
    options.trainer_epoch = epoch;
    ASSERT_OK(model.Push(*publisher_, options));
  }

  absl::StatusOr<uint32_t> Await(uint64_t version, uint32_t workers = 1, milliseconds timeout = kPatience,
                                 std::optional<uint64_t> epoch = std::nullopt) {
    gone_.clear();
    return publisher_->AwaitWorkers(
        {.version = version, .trainer_epoch = epoch, .workers = workers, .all = true, .timeout = timeout}, &gone_);
  }

  std::vector<v1::Worker> Workers() {
    auto inspector = Inspector::Connect(WireTo(server_->address()));
    EXPECT_OK(inspector);
    const auto workers = (*inspector)->Workers("default");
    EXPECT_OK(workers);
    return {workers->workers().begin(), workers->workers().end()};
  }

  bool Spooled(uint64_t version, uint64_t epoch) {
    auto inspector = Inspector::Connect(WireTo(server_->address()));
    const auto versions = (*inspector)->Versions("default");
    for (const v1::VersionSummary& one : versions->versions()) {
      if (one.version() == version && one.trainer_epoch() == epoch) return one.spooled();
    }
    return false;
  }

  // As somebody else's worker would, which knows of no lives, digests and runs.
  absl::StatusOr<v1::ReportWorkerResponse> ReportAsStranger(uint64_t version, const std::string& name = "stranger") {
    auto subscriber = Subscriber::Connect(WireTo(server_->address()));
    WorkerReport report;
    report.worker = name;
    report.version = version;
    report.phase = WorkerPhase::kInstalled;
    const auto foreign = (*subscriber)->Report(report);
    if (!foreign.ok()) return foreign.status();
    v1::ReportWorkerResponse response;
    response.set_foreign(*foreign);
    return response;
  }

  TemporaryFolder folder_;
  std::string spool_;
  std::unique_ptr<RefitServer> server_;
  std::unique_ptr<Publisher> publisher_;
  std::vector<std::string> gone_;
};

TEST_F(FleetTruth, OneThatIsGoneDoesNotCountAndIsNamed) {
  Push(1);
  {
    Engine engine(server_->address());
    ASSERT_OK(engine.worker().Refit());
    EXPECT_OK(Await(1));
  }
  ASSERT_TRUE(Eventually([&] { return !Workers().empty() && !Workers()[0].connected(); }, kPatience));
  EXPECT_THAT(Await(1, 1, kShort),
              StatusIs(StatusCode::kDeadlineExceeded,
                       AllOf(HasSubstr("0 are connected"), HasSubstr("gone, and not counted: w0"))));
  WorkerOptions other;
  other.pull.worker = "w1";
  Engine engine(server_->address(), other);
  ASSERT_OK(engine.worker().Refit());
  EXPECT_THAT(Await(1), IsOkAndHolds(1u));
  EXPECT_THAT(gone_, ElementsAre("w0"));
}

TEST_F(FleetTruth, OneThatComesBackUnderItsNameHasNothingInstalled) {
  Push(1);
  {
    Engine engine(server_->address());
    ASSERT_OK(engine.worker().Refit());
  }
  ASSERT_TRUE(Eventually([&] { return !Workers().empty() && !Workers()[0].connected(); }, kPatience));
  Engine reborn(server_->address());
  EXPECT_THAT(Await(1, 1, kShort), StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("behind: w0")));
  reborn.Refuse();
  reborn.Follow();
  ASSERT_TRUE(Eventually([&] { return !reborn.ErrorsWith("busy").empty(); }, kPatience));
  EXPECT_THAT(Await(1, 1, kShort),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("behind: w0 (failed: INTERNAL: worker w0: install")));
}

TEST_F(FleetTruth, TwoOfOneNameAreTwoWorkers) {
  Engine good(server_->address());
  Engine bad(server_->address());
  bad.Refuse();
  good.Follow();
  bad.Follow();
  Push(1);
  ASSERT_OK(good.worker().WaitForVersion(1, kPatience));
  ASSERT_TRUE(Eventually([&] { return !bad.ErrorsWith("busy").empty(); }, kPatience));
  EXPECT_THAT(Await(1, 1, kShort),
              StatusIs(StatusCode::kDeadlineExceeded, AllOf(HasSubstr("1 workers have"), HasSubstr("2 are connected"),
                                                            HasSubstr("behind: w0#"), HasSubstr("busy"))));
  const std::vector<v1::Worker> workers = Workers();
  ASSERT_EQ(workers.size(), 2u);
  EXPECT_NE(workers[0].life(), workers[1].life());
  EXPECT_NE(workers[0].label(), workers[1].label());
  EXPECT_THAT(workers[0].label(), HasSubstr("w0#"));
}

TEST_F(FleetTruth, OneThatOnlyRefitsIsConnectedAsLongAsItLives) {
  Push(1);
  Engine engine(server_->address());
  EXPECT_EQ(Workers().size(), 1u);  // before it does anything
  ASSERT_OK(engine.worker().Refit());
  EXPECT_OK(Await(1));
  EXPECT_TRUE(Workers()[0].connected());
  Restart();
  Push(2);
  ASSERT_OK(engine.worker().Refit());
  EXPECT_OK(Await(2));
  EXPECT_TRUE(Workers()[0].connected());
}

TEST_F(FleetTruth, AReportOfAVersionThatNeverWasMakesNobodyInstalled) {
  Push(30);
  auto subscriber = Subscriber::Connect(WireTo(server_->address()));
  const auto watch = (*subscriber)->StartWatch({.worker = "stranger", .life = 0});
  const auto foreign = ReportAsStranger(999);
  ASSERT_OK(foreign);
  EXPECT_TRUE(foreign->foreign());
  EXPECT_FALSE(Await(30, 1, kShort).ok());
  const auto known = ReportAsStranger(30);
  ASSERT_OK(known);
  EXPECT_FALSE(known->foreign());
}

TEST_F(FleetTruth, ALargerEpochIsFollowedToWhateverNumber) {
  Engine engine(server_->address());
  engine.Follow();
  Push(50, 1);
  ASSERT_OK(Await(50));
  Push(1, 2);
  ASSERT_OK(Await(1));  // "1 or a later one" of epoch 2, not 50 of epoch 1
  Push(2, 2);
  ASSERT_OK(engine.worker().WaitForVersion(2, kPatience, 2));
  EXPECT_THAT(engine.installed(), ElementsAre(50, 1, 2));
  EXPECT_THAT(Await(50, 1, kPatience, 1),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("trainer epoch 2 has taken over")));
  EXPECT_THAT(engine.worker().WaitForVersion(50, kShort), StatusIs(StatusCode::kDeadlineExceeded));
  EXPECT_TRUE(engine.ErrorsWith("another run").empty());
}

TEST_F(FleetTruth, WhoStaysInAnOlderRunIsNamedWithIt) {
  Engine engine(server_->address());
  Push(50, 1);
  ASSERT_OK(engine.worker().Refit());
  Push(1, 2);
  EXPECT_THAT(Await(1, 1, kShort),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("behind: w0 (has 50 of epoch 1)")));
  ASSERT_OK(engine.worker().Refit());
  EXPECT_OK(Await(1));
  // And back over the border, where nothing but the word of the worker's owner leads.
  const auto back = engine.worker().RollBack();
  ASSERT_OK(back);
  EXPECT_EQ(back->version, 50u);
  EXPECT_EQ(back->trainer_epoch, 1u);
  EXPECT_FALSE(Await(1, 1, kShort).ok());
  engine.Follow();
  Push(2, 2);
  ASSERT_OK(Await(2));
  EXPECT_THAT(engine.installed(), ElementsAre(50, 1, 50, 2));
}

TEST_F(FleetTruth, ANumberIsLookedForInTheNewestRunFirst) {
  Push(1, 1);
  Push(2, 1);
  Push(1, 2);
  auto subscriber = Subscriber::Connect(WireTo(server_->address()));
  PullOptions options;
  options.version = 1;
  EXPECT_EQ((*subscriber)->Pull(options)->result.version.trainer_epoch, 2u);
  options.version = 2;
  EXPECT_EQ((*subscriber)->Pull(options)->result.version.trainer_epoch, 1u);
  options.trainer_epoch = 2;
  EXPECT_THAT((*subscriber)->Pull(options), StatusIs(StatusCode::kNotFound, HasSubstr("of trainer epoch 2")));
  options.version.reset();
  options.trainer_epoch = 1;
  EXPECT_EQ((*subscriber)->Pull(options)->result.version.version, 2u);
}

// The service, or the trainer, was started anew without a word of it.
TEST_F(FleetTruth, AnotherRunIsNotFollowedByItselfAndNobodyIsToldInstalled) {
  Engine engine(server_->address());
  engine.Follow();
  Push(50);
  ASSERT_OK(Await(50));
  Restart();
  Push(1);
  ASSERT_TRUE(Eventually([&] { return !engine.ErrorsWith("of another run").empty(); }, kPatience));
  EXPECT_THAT(engine.ErrorsWith("of another run")[0], AllOf(HasSubstr("worker w0 has version 50 of another run"),
                                                            HasSubstr("accept_new_run"), HasSubstr("trainer_epoch")));
  EXPECT_THAT(Await(1, 1, kShort),
              StatusIs(StatusCode::kDeadlineExceeded,
                       AllOf(HasSubstr("behind: w0 (has 50 of another run"), HasSubstr("accept_new_run"))));
  EXPECT_TRUE(engine.worker().of_other_run());
  const v1::Worker seen = Workers()[0];
  EXPECT_EQ(seen.state(), v1::WORKER_STATE_OTHER_RUN);
  EXPECT_EQ(seen.foreign_version(), 50u);
  EXPECT_FALSE(seen.has_installed_version());
  Push(2);
  EXPECT_THAT(engine.worker().WaitForVersion(1, kShort),
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("of another run")));
  EXPECT_EQ(engine.ErrorsWith("of another run").size(), 1u);  // once, however many come
  Push(1, 1);                                                 // a trainer that says that it is another
  ASSERT_OK(Await(1));
  EXPECT_THAT(engine.installed(), ElementsAre(50, 1));
}

TEST_F(FleetTruth, AnotherRunIsTakenByWhoAcceptsIt) {
  WorkerOptions accepts;
  accepts.accept_new_run = true;
  Engine follower(server_->address(), accepts);
  accepts.pull.worker = "w1";
  Engine caller(server_->address(), accepts);
  follower.Follow();
  Push(50);
  ASSERT_OK(caller.worker().Refit());
  ASSERT_OK(Await(50, 2));
  Restart();
  Push(1);
  ASSERT_OK(caller.worker().Refit());
  ASSERT_OK(Await(1, 2));
  Push(2);
  ASSERT_OK(follower.worker().WaitForVersion(2, kPatience));
  EXPECT_THAT(follower.installed(), ElementsAre(50, 1, 2));
  // Within the new run it goes forward only, as ever.
  ASSERT_OK(caller.worker().Refit());
  EXPECT_THAT(caller.worker().Refit(1), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("older than version 2")));
}

// A trainer that pushes anew what a service has lost: the same bytes under the same number are the same version.
TEST_F(FleetTruth, WhatIsPushedAgainAsItWasIsInstalled) {
  Engine follower(server_->address());
  WorkerOptions other;
  other.pull.worker = "w1";
  Engine caller(server_->address(), other);
  follower.Follow();
  Push(50);
  ASSERT_OK(caller.worker().Refit());
  ASSERT_OK(Await(50, 2));
  Restart();
  ASSERT_TRUE(Eventually([&] { return follower.worker().of_other_run(); }, kPatience));
  Push(50);
  ASSERT_OK(caller.worker().Refit());
  ASSERT_OK(Await(50, 2));
  EXPECT_THAT(follower.installed(), ElementsAre(50));
  EXPECT_THAT(caller.installed(), ElementsAre(50));
  // The service may know it from the follower's report before the follower hears of the version.
  EXPECT_TRUE(Eventually([&] { return !follower.worker().of_other_run(); }, kPatience));
}

// The same number, and not the same bytes.
TEST_F(FleetTruth, TheDigestTellsAVersionFromOneOfItsNumber) {
  Engine stays(server_->address());
  WorkerOptions accepts;
  accepts.accept_new_run = true;
  accepts.pull.worker = "w1";
  Engine goes(server_->address(), accepts);
  Push(5);
  ASSERT_OK(stays.worker().Refit());
  ASSERT_OK(goes.worker().Refit());
  Restart();
  Push(5, 0, TestModel(3, 4, 4));
  EXPECT_THAT(stays.worker().Refit(),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("has other bytes than version 5")));
  ASSERT_OK(goes.worker().Refit());
  EXPECT_THAT(goes.installed(), ElementsAre(5, 5));
  EXPECT_THAT(Await(5, 1, kShort), StatusIs(StatusCode::kDeadlineExceeded,
                                            AllOf(HasSubstr("1 workers have"), HasSubstr("w0 (has 5 of another run"),
                                                  Not(HasSubstr("w1 (")))));
}

TEST_F(FleetTruth, GoingBackToAnotherVersionOfThatNumberIsRefused) {
  WorkerOptions accepts;
  accepts.accept_new_run = true;
  Engine engine(server_->address(), accepts);
  Push(5);
  ASSERT_OK(engine.worker().Refit());
  Push(6);
  ASSERT_OK(engine.worker().Refit());
  Restart();
  Push(5, 0, TestModel(3, 4, 4));
  EXPECT_THAT(engine.worker().RollBack(), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("another version 5")));
  EXPECT_EQ(engine.worker().installed(), 6u);
}

// With a spool the service knows after a restart what it had.
TEST_F(FleetTruth, WithASpoolARestartChangesNothing) {
  spool_ = folder_.Path("spool");
  Restart();
  Engine engine(server_->address());
  engine.Follow();
  Push(50, 1);
  Push(1, 2);
  ASSERT_OK(Await(1));
  ASSERT_TRUE(Eventually([&] { return Spooled(1, 2); }, kPatience));
  Restart();
  EXPECT_OK(Await(1));
  EXPECT_THAT(publisher_->AskLastRun("default")->trainer_epoch, 2u);
  Push(2, 2);
  ASSERT_OK(Await(2));
  EXPECT_TRUE(engine.ErrorsWith("another run").empty());
}

TEST_F(FleetTruth, ATrainerAsksWhatItGoesOnFrom) {
  const auto nothing = publisher_->AskLastRun("default");
  ASSERT_OK(nothing);
  EXPECT_EQ(nothing->trainer_epoch, 0u);
  EXPECT_EQ(nothing->version, 0u);
  Push(50, 7);
  Push(3, 8);
  const auto last = publisher_->AskLastRun("default");
  ASSERT_OK(last);
  EXPECT_EQ(last->trainer_epoch, 8u);
  EXPECT_EQ(last->version, 50u);
}

}  // namespace
}  // namespace refit

// Workers stage, verify and install; trainers wait for them, and let a fleet switch together.
#include "refit/worker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <utility>

#include "refit/inspector.h"
#include "refit/subscriber.h"
#include "tests/support/fleet.h"

namespace refit {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A worker with a thread that follows, whose engine keeps what was installed.
class Engine {
 public:
  Engine(const std::string& address, const TestModel& model, const std::string& name, WorkerOptions options = {})
      : model_(model) {
    options.pull.worker = name;
    options.first_pause = milliseconds(20);
    options.install = [this](StagedVersion& staged) { return Install(staged); };
    options.on_error = [this](const absl::Status& status) {
      const std::lock_guard lock(mutex_);
      errors_.push_back(status.ToString());
    };
    auto worker = Worker::Create(WireTo(address), std::move(options));
    EXPECT_OK(worker);
    worker_ = *std::move(worker);
  }
  ~Engine() { Stop(); }

  void Follow() {
    thread_ = std::thread([this] { EXPECT_OK(worker_->Follow()); });
  }
  void Stop() {
    worker_->Stop();
    if (thread_.joinable()) thread_.join();
  }
  void RefuseInstalls(bool refuse) { refuses_ = refuse; }
  Worker& worker() { return *worker_; }
  std::vector<uint64_t> installed() const {
    const std::lock_guard lock(mutex_);
    return installed_;
  }
  std::vector<uint64_t> skipped() const {
    const std::lock_guard lock(mutex_);
    return skipped_;
  }
  std::string errors() const {
    const std::lock_guard lock(mutex_);
    std::string all;
    for (const std::string& error : errors_) all += error + "\n";
    return all;
  }

 private:
  absl::Status Install(StagedVersion& staged) {
    EXPECT_OK(model_.Check(staged));
    if (refuses_) return absl::InternalError("the engine is busy");
    const std::lock_guard lock(mutex_);
    installed_.push_back(staged.version.version);
    skipped_ = staged.skipped;
    return absl::OkStatus();
  }

  const TestModel& model_;
  std::unique_ptr<Worker> worker_;
  std::thread thread_;
  std::atomic<bool> refuses_ = false;
  mutable std::mutex mutex_;
  std::vector<uint64_t> installed_;
  std::vector<uint64_t> skipped_;
  std::vector<std::string> errors_;
};

class WorkerTest : public ::testing::Test {
 protected:
  void SetUp() override { Restart(); }

  // The address by value: it may be that of the server which goes.
  void Restart(std::string listen = ServerOptions().listen) {
    publisher_.reset();
    server_.reset();
    ServerOptions options;
    options.listen = std::move(listen);
    server_ = StartService(options);
    ASSERT_NE(server_, nullptr);
    auto publisher = Publisher::Connect(WireTo(server_->address()));
    ASSERT_OK(publisher);
    publisher_ = *std::move(publisher);
  }

  void Push(uint64_t version, bool hold = false) {
    PublishOptions options = model_.Options(version);
    options.hold_installs = hold;
    ASSERT_OK(model_.Push(*publisher_, options));
  }

  absl::StatusOr<uint32_t> Await(uint64_t version, Publisher::Await::Phase phase, uint32_t workers,
                                 milliseconds timeout = seconds(20)) {
    return publisher_->AwaitWorkers(
        {.version = version, .phase = phase, .workers = workers, .all = true, .timeout = timeout});
  }

  v1::Worker Look(const std::string& name) {
    auto inspector = Inspector::Connect(WireTo(server_->address()));
    EXPECT_OK(inspector);
    const auto workers = (*inspector)->Workers("default");
    EXPECT_OK(workers);
    for (const v1::Worker& worker : workers->workers()) {
      if (worker.name() == name) return worker;
    }
    return {};
  }

  static constexpr auto kStaged = Publisher::Await::Phase::kStaged;
  static constexpr auto kInstalled = Publisher::Await::Phase::kInstalled;
  const TestModel model_;
  std::unique_ptr<RefitServer> server_;
  std::unique_ptr<Publisher> publisher_;
};

TEST_F(WorkerTest, FollowsVersionsAsTheyCome) {
  Engine engine(server_->address(), model_, "w0");
  engine.Follow();
  for (uint64_t version = 1; version <= 4; ++version) {
    Push(version);
    ASSERT_OK(engine.worker().WaitForVersion(version, seconds(20)));
    ASSERT_OK(Await(version, kInstalled, 1));
  }
  EXPECT_THAT(engine.installed(), ElementsAre(1, 2, 3, 4));
  const v1::Worker seen = Look("w0");
  EXPECT_EQ(seen.state(), v1::WORKER_STATE_INSTALLED);
  EXPECT_EQ(seen.installed_version(), 4u);
  EXPECT_EQ(seen.staged_version(), 4u);
  EXPECT_TRUE(seen.connected());
  EXPECT_GT(seen.stage_ns(), 0u);
  engine.Stop();
  EXPECT_EQ(engine.errors(), "");
}

TEST_F(WorkerTest, AnAbortedVersionIsNeverInstalled) {
  Engine engine(server_->address(), model_, "w0");
  engine.Follow();
  Push(1);
  ASSERT_OK(engine.worker().WaitForVersion(1, seconds(20)));
  {
    auto push = publisher_->Open(model_.Options(2), model_.specs());
    ASSERT_OK(push);
    ASSERT_OK((*push)->Append(0, model_.Bytes(2, 0)));
    ASSERT_OK((*push)->Abort("changed my mind"));
  }
  EXPECT_EQ(engine.worker().installed(), 1u);
  Push(3);
  ASSERT_OK(engine.worker().WaitForVersion(3, seconds(20)));
  EXPECT_THAT(engine.installed(), ElementsAre(1, 3));
}

TEST_F(WorkerTest, AFleetSwitchesTogether) {
  Engine a(server_->address(), model_, "a");
  Engine b(server_->address(), model_, "b");
  a.Follow();
  b.Follow();
  Push(1);
  ASSERT_OK(Await(1, kInstalled, 2));
  Push(2, /*hold=*/true);
  ASSERT_THAT(Await(2, kStaged, 2), IsOk());
  EXPECT_THAT(Await(2, kInstalled, 2, milliseconds(50)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("behind: a, b")));
  EXPECT_EQ(a.worker().installed(), 1u);
  EXPECT_EQ(b.worker().installed(), 1u);
  const auto released = publisher_->ReleaseInstalls("default", 2);
  ASSERT_OK(released);
  EXPECT_FALSE(released->installs_held);
  const auto both = Await(2, kInstalled, 2);
  ASSERT_OK(both);
  EXPECT_EQ(*both, 2u);
  EXPECT_OK(publisher_->ReleaseInstalls("default", 2));  // again is no harm
}

TEST_F(WorkerTest, AHeldVersionGivesWayToANewerOne) {
  Engine engine(server_->address(), model_, "w0");
  engine.Follow();
  Push(1, /*hold=*/true);
  ASSERT_OK(Await(1, kStaged, 1));
  Push(2);
  ASSERT_OK(engine.worker().WaitForVersion(2, seconds(20)));
  EXPECT_THAT(engine.installed(), ElementsAre(2));
  Push(3, /*hold=*/true);
  ASSERT_OK(Await(3, kStaged, 1));
  EXPECT_THAT(engine.worker().Refit(3), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("its trainer")));
  ASSERT_OK(publisher_->ReleaseInstalls("default", 3));
  ASSERT_OK(engine.worker().WaitForVersion(3, seconds(20)));
}

TEST_F(WorkerTest, ReleaseOfWhatIsNotThere) {
  EXPECT_THAT(publisher_->ReleaseInstalls("default", 7), StatusIs(absl::StatusCode::kNotFound));
  auto push = publisher_->Open(model_.Options(1), model_.specs());
  ASSERT_OK(push);
  ASSERT_OK((*push)->Abort("no"));
  EXPECT_THAT(publisher_->ReleaseInstalls("default", 1), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(WorkerTest, AwaitSaysWhoIsBehindAndWhy) {
  EXPECT_THAT(Await(1, kStaged, 1, milliseconds(20)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("0 are connected")));
  Engine engine(server_->address(), model_, "w0");
  engine.RefuseInstalls(true);
  engine.Follow();
  Push(1);
  ASSERT_OK(Await(1, kStaged, 1));
  const auto late = Await(1, kInstalled, 1, milliseconds(500));
  EXPECT_THAT(late, StatusIs(absl::StatusCode::kDeadlineExceeded,
                             HasSubstr("w0 (failed: INTERNAL: worker w0: install of version 1: the engine is busy)")));
  EXPECT_FALSE(engine.worker().ready());
  engine.RefuseInstalls(false);
  Push(2);
  ASSERT_OK(Await(2, kInstalled, 1));
  EXPECT_THAT(engine.installed(), ElementsAre(2));
}

TEST_F(WorkerTest, AwaitEndsWithTheVersion) {
  auto push = publisher_->Open(model_.Options(1), model_.specs());
  ASSERT_OK(push);
  std::thread aborter([&] { EXPECT_OK((*push)->Abort("out of memory")); });
  EXPECT_THAT(Await(1, kInstalled, 1), StatusIs(absl::StatusCode::kAborted, HasSubstr("out of memory")));
  aborter.join();
}

TEST_F(WorkerTest, AwaitChecksWhatItIsAsked) {
  EXPECT_THAT(publisher_->AwaitWorkers({.version = 0}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(publisher_->AwaitWorkers({.version = 1, .timeout = std::chrono::hours(25)}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(WorkerTest, ReportsAreChecked) {
  auto subscriber = Subscriber::Connect(WireTo(server_->address()));
  ASSERT_OK(subscriber);
  WorkerReport report;
  EXPECT_THAT((*subscriber)->Report(report), StatusIs(absl::StatusCode::kInvalidArgument));
  report.worker = "w0";
  report.version = 1;
  EXPECT_THAT((*subscriber)->Report(report), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("phase 0")));
  report.phase = static_cast<WorkerPhase>(99);
  EXPECT_THAT((*subscriber)->Report(report), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("phase 99")));
  report.phase = WorkerPhase::kInstalled;
  EXPECT_OK((*subscriber)->Report(report));
}

TEST_F(WorkerTest, ABusyWorkerLearnsWhatItSkips) {
  Engine engine(server_->address(), model_, "w0");
  Push(1);
  ASSERT_OK(engine.worker().Refit());
  EXPECT_THAT(engine.skipped(), ElementsAre());
  Push(2);
  Push(3);
  Push(4);
  const auto newest = engine.worker().Refit();
  ASSERT_OK(newest);
  EXPECT_EQ(newest->version, 4u);
  EXPECT_THAT(engine.skipped(), ElementsAre(2, 3));
  ASSERT_OK(engine.worker().Refit());  // nothing new: nothing is pulled
  EXPECT_THAT(engine.installed(), ElementsAre(1, 4));
}

TEST_F(WorkerTest, GoesBackInOneCallAndStaysThere) {
  Engine engine(server_->address(), model_, "w0");
  EXPECT_THAT(engine.worker().RollBack(), StatusIs(absl::StatusCode::kFailedPrecondition));
  engine.Follow();
  Push(1);
  ASSERT_OK(engine.worker().WaitForVersion(1, seconds(20)));
  Push(2);
  ASSERT_OK(engine.worker().WaitForVersion(2, seconds(20)));
  const auto back = engine.worker().RollBack();
  ASSERT_OK(back);
  EXPECT_EQ(back->version, 1u);
  EXPECT_EQ(engine.worker().installed(), 1u);
  Push(3);
  ASSERT_OK(engine.worker().WaitForVersion(3, seconds(20)));
  EXPECT_THAT(engine.installed(), ElementsAre(1, 2, 1, 3));
}

TEST_F(WorkerTest, FollowSurvivesARestartOfTheService) {
  Engine engine(server_->address(), model_, "w0");
  engine.Follow();
  Push(5);
  ASSERT_OK(engine.worker().WaitForVersion(5, seconds(20)));
  const std::string address = server_->address();
  Restart(address);
  EXPECT_EQ(engine.worker().installed(), 5u);  // what is in use stays in use
  // A service that knows nothing hears of the worker again, and its numbers must still grow.
  Push(6);
  ASSERT_OK(engine.worker().WaitForVersion(6, seconds(20)));
  ASSERT_OK(Await(6, kInstalled, 1));
  EXPECT_THAT(engine.installed(), ElementsAre(5, 6));
  EXPECT_THAT(engine.errors(), HasSubstr("watch of default"));
}

// The Update Framework's "rollback": a service that offers what is older than what is in use.
TEST_F(WorkerTest, AnOlderVersionIsRefused) {
  Engine engine(server_->address(), model_, "w0");
  Push(5);
  ASSERT_OK(engine.worker().Refit());
  Restart(server_->address());
  Push(4);
  EXPECT_THAT(engine.worker().Refit(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("version 4 is older than version 5"), HasSubstr("of another run"))));
  EXPECT_EQ(engine.worker().installed(), 5u);
}

// "Freeze": a service that keeps saying that nothing is new.
TEST_F(WorkerTest, AFrozenServiceIsNoticed) {
  Engine engine(server_->address(), model_, "w0");
  engine.Follow();
  Push(1);
  ASSERT_OK(engine.worker().WaitForVersion(1, seconds(20)));
  EXPECT_THAT(engine.worker().WaitForVersion(2, milliseconds(100)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("version 1 is in use")));
}

// "Fast-forward": one forged number that would shut out all that follow.
TEST_F(WorkerTest, ALeapIsRefused) {
  WorkerOptions options;
  options.max_version_step = 1000;
  Engine engine(server_->address(), model_, "w0", options);
  Push(10);
  ASSERT_OK(engine.worker().Refit());
  Push(1'000'000);
  EXPECT_THAT(engine.worker().Refit(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("more than 1000 beyond version 10")));
  EXPECT_EQ(engine.worker().installed(), 10u);
}

TEST_F(WorkerTest, StagesIntoTheCallersMemory) {
  std::vector<std::vector<std::byte>> memory(model_.specs().size());
  size_t next = 0;
  WorkerOptions options;
  options.place = [&](const TensorPart& part) -> absl::StatusOr<absl::Span<std::byte>> {
    memory[next].resize(part.ByteSize());
    return absl::MakeSpan(memory[next++]);
  };
  Engine engine(server_->address(), model_, "w0", options);
  Push(1);
  ASSERT_OK(engine.worker().Refit());
  for (size_t i = 0; i < memory.size(); ++i) EXPECT_EQ(memory[i], model_.Bytes(1, i));
}

TEST_F(WorkerTest, OptionsMustFit) {
  EXPECT_THAT(Worker::Create(WireTo(server_->address()), {}), StatusIs(absl::StatusCode::kInvalidArgument));
  WorkerOptions options;
  options.install = [](StagedVersion&) { return absl::OkStatus(); };
  options.in_place = true;
  EXPECT_THAT(Worker::Create(WireTo(server_->address()), options), StatusIs(absl::StatusCode::kInvalidArgument));
}

// In place: torn from the first byte until a whole version is there.
class InPlaceTest : public WorkerTest {
 protected:
  WorkerOptions InPlace() {
    memory_.resize(model_.specs().size());
    for (size_t i = 0; i < memory_.size(); ++i) memory_[i].resize(model_.specs()[i].ByteSize());
    WorkerOptions options;
    options.in_place = true;
    options.place = [this](const TensorPart& part) -> absl::StatusOr<absl::Span<std::byte>> {
      for (size_t i = 0; i < memory_.size(); ++i) {
        if (model_.specs()[i].name != part.tensor.name) continue;
        if (i == fail_at_) return absl::ResourceExhaustedError("no room on the device");
        return absl::MakeSpan(memory_[i]);
      }
      return absl::NotFoundError(part.tensor.name);
    };
    return options;
  }

  std::vector<std::vector<std::byte>> memory_;
  std::atomic<size_t> fail_at_ = SIZE_MAX;
};

TEST_F(InPlaceTest, InstallsWhatLiesInItsPlace) {
  Engine engine(server_->address(), model_, "w0", InPlace());
  engine.Follow();
  for (uint64_t version = 1; version <= 3; ++version) {
    Push(version);
    ASSERT_OK(engine.worker().WaitForVersion(version, seconds(20)));
    for (size_t i = 0; i < memory_.size(); ++i) EXPECT_EQ(memory_[i], model_.Bytes(version, i));
  }
  EXPECT_FALSE(engine.worker().torn());
}

TEST_F(InPlaceTest, IsTornUntilItIsWholeAgain) {
  Engine engine(server_->address(), model_, "w0", InPlace());
  Push(1);
  ASSERT_OK(engine.worker().Refit());
  fail_at_ = 3;
  Push(2);
  EXPECT_THAT(engine.worker().Refit(), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_TRUE(engine.worker().torn());
  EXPECT_FALSE(engine.worker().ready());
  const v1::Worker seen = Look("w0");
  EXPECT_EQ(seen.state(), v1::WORKER_STATE_TORN);
  EXPECT_FALSE(seen.has_installed_version());
  EXPECT_THAT(seen.last_error(), HasSubstr("no room on the device"));
  EXPECT_THAT(Await(1, kInstalled, 1, milliseconds(20)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("w0 (torn")));
  // It recovers by itself once it can.
  engine.Follow();
  EXPECT_THAT(engine.worker().WaitForVersion(2, milliseconds(300)), StatusIs(absl::StatusCode::kDeadlineExceeded));
  fail_at_ = SIZE_MAX;
  ASSERT_OK(engine.worker().WaitForVersion(2, seconds(20)));
  EXPECT_FALSE(engine.worker().torn());
  for (size_t i = 0; i < memory_.size(); ++i) EXPECT_EQ(memory_[i], model_.Bytes(2, i));
}

TEST_F(InPlaceTest, WaitsForTheReleaseBeforeItTouchesAnything) {
  Engine engine(server_->address(), model_, "w0", InPlace());
  engine.Follow();
  Push(1);
  ASSERT_OK(engine.worker().WaitForVersion(1, seconds(20)));
  Push(2, /*hold=*/true);
  EXPECT_THAT(engine.worker().WaitForVersion(2, milliseconds(300)), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(memory_[0], model_.Bytes(1, 0));
  ASSERT_OK(publisher_->ReleaseInstalls("default", 2));
  ASSERT_OK(engine.worker().WaitForVersion(2, seconds(20)));
}

}  // namespace
}  // namespace refit

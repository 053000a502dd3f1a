// A worker whose memory in use is changed in place: nothing is touched before all of a version is there and verified,
// and what was changed can be taken back.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/calls/stop_flag.h"
#include "client/worker/installed_versions.h"
#include "client/worker/refitter.h"
#include "client/worker/reporter.h"
#include "refit/inspector.h"
#include "refit/worker.h"
#include "tests/support/fleet.h"
#include "tests/support/stepped_model.h"

namespace refit {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Bytes = SteppedModel::Bytes;
using Memory = std::map<std::string, Bytes>;

class InPlaceWorker : public ::testing::Test {
 protected:
  void SetUp() override {
    server_ = StartService();
    ASSERT_NE(server_, nullptr);
  }

  WorkerOptions Options() {
    WorkerOptions options;
    options.in_place = true;
    options.pull.worker = "w";
    options.pull.resume_within = std::chrono::milliseconds(0);
    options.place = [this](const TensorPart& part) { return place_(part); };
    options.install = [this](StagedVersion& staged) {
      traffic_ = staged.traffic;
      torn_in_install_ = worker_ != nullptr && worker_->torn();
      torn_in_place_ = std::exchange(torn_meanwhile_, false);
      return engine_(staged);
    };
    return options;
  }
  void Start() { Start(Options()); }
  void Start(WorkerOptions options) {
    auto worker = Worker::Create(WireTo(server_->address()), std::move(options));
    ASSERT_OK(worker);
    worker_ = *std::move(worker);
  }

  void Push(uint64_t version) {
    if (version > 1) model_.Step();
    ASSERT_OK(model_.Push(WireTo(server_->address()), version));
  }
  void PushAndRefit(uint64_t version) {
    ASSERT_NO_FATAL_FAILURE(Push(version));
    ASSERT_OK(worker_->Refit());
    ExpectInUse(version);
  }

  // Memory of its own for each tensor, always the same.
  absl::StatusOr<absl::Span<std::byte>> OwnPlace(const TensorPart& part) {
    if (worker_ != nullptr && worker_->torn()) torn_meanwhile_ = true;
    Bytes& bytes = memory_[part.tensor.name];
    bytes.resize(part.ByteSize());
    return absl::MakeSpan(bytes);
  }

  void ExpectInUse(uint64_t version) {
    EXPECT_EQ(worker_->installed(), version);
    EXPECT_FALSE(worker_->torn());
    for (const TensorSpec& spec : model_.specs) {
      EXPECT_TRUE(memory_[spec.name] == model_.values.at(spec.name)) << spec.name << " of version " << version;
    }
  }
  void ExpectDeltas(uint64_t base) {
    EXPECT_EQ(traffic_.base_version, base);
    EXPECT_THAT(traffic_.base_refused, IsEmpty());
    EXPECT_LT(traffic_.wire_bytes, model_.bytes() / 40);
    EXPECT_FALSE(torn_in_place_);
    EXPECT_TRUE(torn_in_install_);
  }

  v1::Worker Look() {
    auto inspector = Inspector::Connect(WireTo(server_->address()));
    EXPECT_OK(inspector);
    const auto seen = (*inspector)->Workers("default");
    EXPECT_OK(seen);
    for (const v1::Worker& worker : seen->workers()) {
      if (worker.name() == "w") return worker;
    }
    return {};
  }

  SteppedModel model_;
  std::unique_ptr<RefitServer> server_;
  Memory memory_;
  PullTraffic traffic_;
  bool torn_meanwhile_ = false;  // when asked for memory
  bool torn_in_place_ = false;   // the same, for the last version installed
  bool torn_in_install_ = false;
  std::function<absl::StatusOr<absl::Span<std::byte>>(const TensorPart&)> place_ = [this](const TensorPart& part) {
    return OwnPlace(part);
  };
  std::function<absl::Status(StagedVersion&)> engine_ = [](StagedVersion&) { return absl::OkStatus(); };
  std::unique_ptr<Worker> worker_;
};

TEST_F(InPlaceWorker, WhatHasChangedIsAppliedWhereItBelongs) {
  Start();
  PushAndRefit(1);
  EXPECT_FALSE(traffic_.base_version.has_value());
  for (uint64_t version = 2; version <= 4; ++version) {
    PushAndRefit(version);
    ExpectDeltas(version - 1);
    EXPECT_EQ(Look().state(), v1::WORKER_STATE_INSTALLED);
    EXPECT_EQ(Look().installed_version(), version);
  }
}

TEST_F(InPlaceWorker, AFollowerDoesTheSame) {
  Start();
  std::thread follow([this] { EXPECT_OK(worker_->Follow()); });
  for (uint64_t version = 1; version <= 3; ++version) {
    Push(version);
    ASSERT_OK(worker_->WaitForVersion(version, std::chrono::seconds(20)));
  }
  worker_->Stop();
  follow.join();
  ExpectInUse(3);
  ExpectDeltas(2);
}

TEST_F(InPlaceWorker, AFailedPlaceTouchesNothing) {
  Start();
  PushAndRefit(1);
  const Memory before = memory_;
  place_ = [this](const TensorPart& part) -> absl::StatusOr<absl::Span<std::byte>> {
    if (part.tensor.name == "bias") return absl::ResourceExhaustedError("no room");
    return OwnPlace(part);
  };
  Push(2);
  EXPECT_THAT(worker_->Refit().status(), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("no room")));
  EXPECT_EQ(worker_->installed(), 1u);
  EXPECT_FALSE(worker_->torn());
  EXPECT_TRUE(memory_ == before);
  EXPECT_EQ(Look().state(), v1::WORKER_STATE_FAILED);
  place_ = [this](const TensorPart& part) { return OwnPlace(part); };
  ASSERT_OK(worker_->Refit());
  ExpectInUse(2);
  ExpectDeltas(1);
}

TEST_F(InPlaceWorker, AFailedInstallTakesTheChangesBack) {
  Start();
  PushAndRefit(1);
  const Memory first = memory_;
  engine_ = [&](StagedVersion& staged) {
    EXPECT_FALSE(memory_ == first);
    staged.tensors.clear();  // an engine may move them away
    return absl::InternalError("busy");
  };
  Push(2);
  EXPECT_THAT(worker_->Refit().status(), StatusIs(absl::StatusCode::kInternal, HasSubstr("busy")));
  EXPECT_TRUE(memory_ == first);
  EXPECT_EQ(worker_->installed(), 1u);
  EXPECT_FALSE(worker_->torn());
  EXPECT_THAT(worker_->RollBack().status(), StatusIs(absl::StatusCode::kFailedPrecondition));  // as before
  engine_ = [](StagedVersion&) { return absl::OkStatus(); };
  ASSERT_OK(worker_->Refit());
  ExpectInUse(2);
  ExpectDeltas(1);
}

TEST_F(InPlaceWorker, RollingBackNeedsNoService) {
  Start();
  PushAndRefit(1);
  const auto first = model_.values;
  PushAndRefit(2);
  const auto second = model_.values;
  server_.reset();
  for (const auto& [version, values] : {std::pair{1, first}, std::pair{2, second}, std::pair{1, first}}) {
    ASSERT_OK(worker_->RollBack());
    model_.values = values;
    ExpectInUse(version);
    EXPECT_FALSE(torn_in_place_);
    EXPECT_TRUE(torn_in_install_);
  }
}

TEST_F(InPlaceWorker, AfterRollingBackTheNextVersionIsADelta) {
  ServerOptions options;
  options.store.retain_versions = 3;
  server_ = StartService(options);
  Start();
  PushAndRefit(1);
  const auto first = model_.values;
  PushAndRefit(2);
  ASSERT_OK(worker_->RollBack());
  model_.values = first;
  model_.Step(70);
  ASSERT_OK(model_.Push(WireTo(server_->address()), 3));
  ASSERT_OK(worker_->Refit());
  ExpectInUse(3);
  ExpectDeltas(1);
}

TEST_F(InPlaceWorker, RollingBackAfterAFailedInstallIsPossible) {
  Start();
  PushAndRefit(1);
  const auto first = model_.values;
  PushAndRefit(2);
  engine_ = [](StagedVersion&) { return absl::InternalError("busy"); };
  EXPECT_THAT(worker_->RollBack().status(), StatusIs(absl::StatusCode::kInternal));
  ExpectInUse(2);
  Push(3);
  EXPECT_THAT(worker_->Refit().status(), StatusIs(absl::StatusCode::kInternal));
  engine_ = [](StagedVersion&) { return absl::OkStatus(); };
  server_.reset();
  ASSERT_OK(worker_->RollBack());
  model_.values = first;
  ExpectInUse(1);
}

// What is kept no longer leads back. So the service is asked.
TEST_F(InPlaceWorker, RollingBackIsVerifiedBeforeAnythingIsTouched) {
  Start();
  PushAndRefit(1);
  const auto first = model_.values;
  PushAndRefit(2);
  memory_["weight"][1000] ^= std::byte{1};
  ASSERT_OK(worker_->RollBack());
  model_.values = first;
  ExpectInUse(1);
}

TEST_F(InPlaceWorker, WithoutTheServiceAChangedMemoryStaysAsItIs) {
  Start();
  PushAndRefit(1);
  PushAndRefit(2);
  memory_["weight"][1000] ^= std::byte{1};
  const Memory before = memory_;
  server_.reset();
  EXPECT_THAT(worker_->RollBack().status(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(memory_ == before);
  EXPECT_EQ(worker_->installed(), 2u);
}

TEST_F(InPlaceWorker, ATensorThatTheEngineChangedComesWholeButApart) {
  Start();
  PushAndRefit(1);
  memory_["bias"][77] ^= std::byte{4};
  PushAndRefit(2);
  EXPECT_THAT(traffic_.base_refused, HasSubstr("bias"));
  EXPECT_FALSE(torn_in_place_);
  PushAndRefit(3);
  ExpectDeltas(2);
}

TEST_F(InPlaceWorker, WhatIsTooLargeToBeKeptApartIsWrittenAtOnce) {
  Start();
  PushAndRefit(1);
  memory_["weight"][77] ^= std::byte{4};
  PushAndRefit(2);
  EXPECT_THAT(traffic_.base_refused, HasSubstr("1/4"));
  EXPECT_TRUE(torn_in_place_);
  PushAndRefit(3);
  ExpectDeltas(2);
  model_.values.at("weight") = SteppedModel::Pattern(model_.specs[0], 99);
  PushAndRefit(4);
  EXPECT_THAT(traffic_.base_refused, HasSubstr("1/4"));
  EXPECT_TRUE(torn_in_place_);
  PushAndRefit(5);
  ExpectDeltas(4);
}

TEST_F(InPlaceWorker, RawChunksAreKeptApartAndTakenBack) {
  Start();
  PushAndRefit(1);
  const auto first = model_.values;
  model_.values.at("bias") = SteppedModel::Pattern(model_.specs[2], 99);
  PushAndRefit(2);
  EXPECT_GT(traffic_.raw_chunks, 0u);
  EXPECT_FALSE(torn_in_place_);
  server_.reset();
  ASSERT_OK(worker_->RollBack());
  model_.values = first;
  ExpectInUse(1);
}

TEST_F(InPlaceWorker, OtherMemoryIsNoBase) {
  Start();
  PushAndRefit(1);
  const Memory former = std::exchange(memory_, {});
  const auto first = model_.values;
  PushAndRefit(2);
  EXPECT_THAT(traffic_.base_refused, HasSubstr("other memory"));
  EXPECT_TRUE(former.at("weight") == first.at("weight"));
  PushAndRefit(3);
  ExpectDeltas(2);
}

// Changes of both would be applied to the same elements.
TEST_F(InPlaceWorker, TensorsThatShareMemoryAreNoBase) {
  model_.specs.push_back({"tied", DType::kBF16, {640}});
  Bytes tied(1280);
  place_ = [&](const TensorPart& part) -> absl::StatusOr<absl::Span<std::byte>> {
    if (part.tensor.name == "tied" || part.tensor.name == "bias") return absl::MakeSpan(tied);
    return OwnPlace(part);
  };
  Start();
  model_.values["bias"] = model_.values["tied"] = SteppedModel::Pattern(model_.specs[2], 5);
  for (uint64_t version = 1; version <= 3; ++version) {
    if (version > 1) model_.Step();
    model_.values["tied"] = model_.values["bias"];
    ASSERT_OK(model_.Push(WireTo(server_->address()), version));
    ASSERT_OK(worker_->Refit());
    EXPECT_FALSE(traffic_.base_version.has_value());
    EXPECT_TRUE(tied == model_.values["bias"]);
    EXPECT_TRUE(memory_["weight"] == model_.values["weight"]);
  }
}

TEST_F(InPlaceWorker, ATensorThatJoinsAndSharesMemoryIsWrittenAtOnce) {
  Start();
  PushAndRefit(1);
  model_.specs.push_back({"tied", DType::kBF16, {640}});
  place_ = [this](TensorPart part) {
    if (part.tensor.name == "tied") part.tensor.name = "bias";
    return OwnPlace(part);
  };
  model_.Step();
  model_.values["tied"] = model_.values["bias"];
  ASSERT_OK(model_.Push(WireTo(server_->address()), 2));
  ASSERT_OK(worker_->Refit());
  EXPECT_THAT(traffic_.base_refused, HasSubstr("share memory"));
  EXPECT_TRUE(memory_["bias"] == model_.values["bias"]);
}

TEST_F(InPlaceWorker, ATensorThatJoinsComesWhole) {
  Start();
  PushAndRefit(1);
  const auto first = model_.values;
  model_.specs.push_back({"more", DType::kF32, {40}});
  PushAndRefit(2);
  EXPECT_EQ(traffic_.base_version, 1u);
  EXPECT_FALSE(torn_in_place_);
  model_.specs.pop_back();
  ASSERT_OK(worker_->RollBack());  // from the service, since the tensors are others
  model_.values = first;
  ExpectInUse(1);
}

TEST_F(InPlaceWorker, AServiceWithoutTheBaseSendsItWhole) {
  Start();
  PushAndRefit(1);
  const std::string address = server_->address();
  server_.reset();
  ServerOptions options;
  options.listen = address;
  server_ = StartService(options);
  ASSERT_NE(server_, nullptr);
  PushAndRefit(2);
  EXPECT_FALSE(traffic_.base_version.has_value());
  EXPECT_THAT(traffic_.base_refused, HasSubstr("no version 1"));
  EXPECT_TRUE(torn_in_place_);
}

TEST_F(InPlaceWorker, DeltasCanBeTurnedOff) {
  WorkerOptions options = Options();
  options.deltas = false;
  Start(std::move(options));
  PushAndRefit(1);
  PushAndRefit(2);
  EXPECT_FALSE(traffic_.base_version.has_value());
  EXPECT_TRUE(torn_in_place_);
}

TEST_F(InPlaceWorker, AVersionInUseTwiceCostsAndChangesNothing) {
  Start();
  PushAndRefit(1);
  PushAndRefit(2);
  ASSERT_OK(worker_->Refit());
  ExpectInUse(2);
}

// Follow stages a version; a call goes back before it is installed; then it is not what the deltas are of.
TEST_F(InPlaceWorker, DeltasAreNotAppliedToAnotherVersionThanTheyWereStagedFor) {
  const WorkerOptions options = Options();
  auto subscriber = Subscriber::Connect(WireTo(server_->address()));
  ASSERT_OK(subscriber);
  StopFlag stop;
  InstalledVersions versions(options);
  Reporter reporter(**subscriber, options, versions, stop);
  Refitter refitter(**subscriber, options, versions, reporter, stop);
  for (uint64_t version = 1; version <= 2; ++version) {
    Push(version);
    ASSERT_OK(refitter.Refit({}, Way::kForward));
  }
  Push(3);
  auto staging = refitter.StageFollowing({});
  ASSERT_OK(staging);
  ASSERT_NE(staging->deltas, nullptr);
  ASSERT_OK(refitter.RollBack(*versions.previous()));
  ASSERT_EQ(versions.installed()->version, 1u);
  ASSERT_OK(refitter.InstallFollowing(*staging));
  EXPECT_EQ(versions.installed()->version, 3u);
  EXPECT_TRUE(memory_["weight"] == model_.values["weight"]);
  EXPECT_TRUE(memory_["bias"] == model_.values["bias"]);
}

}  // namespace
}  // namespace refit

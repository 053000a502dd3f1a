// A worker uses the version in use as the base of the next one, as long as it is there.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "refit/subscriber.h"
#include "refit/worker.h"
#include "tests/support/fleet.h"
#include "tests/support/stepped_model.h"

namespace refit {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class DeltaWorker : public ::testing::Test {
 protected:
  void SetUp() override {
    server_ = StartService();
    ASSERT_NE(server_, nullptr);
  }

  void Start(WorkerOptions options) {
    options.install = [this](StagedVersion& staged) {
      for (const StagedVersion::Tensor& tensor : staged.tensors) {
        EXPECT_TRUE(tensor.bytes == absl::MakeConstSpan(model_.values.at(tensor.part.tensor.name)));
      }
      traffic_ = staged.traffic;
      return engine_(staged);
    };
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
  }

  // An engine that works on the tensors as they are.
  absl::Status Keep(StagedVersion& staged) {
    in_use_ = std::move(staged.tensors);
    return absl::OkStatus();
  }

  SteppedModel model_;
  std::unique_ptr<RefitServer> server_;
  PullTraffic traffic_;
  std::vector<StagedVersion::Tensor> in_use_;
  std::function<absl::Status(StagedVersion&)> engine_ = [this](StagedVersion& staged) { return Keep(staged); };
  std::unique_ptr<Worker> worker_;
};

TEST_F(DeltaWorker, WhatTheEngineKeepsIsTheBase) {
  Start({});
  PushAndRefit(1);
  EXPECT_EQ(traffic_.wire_bytes, model_.bytes());
  for (uint64_t version = 2; version <= 4; ++version) {
    PushAndRefit(version);
    EXPECT_EQ(traffic_.base_version, version - 1);
    EXPECT_LT(traffic_.wire_bytes, model_.bytes() / 40);
  }
}

TEST_F(DeltaWorker, AnEngineThatCopiesLeavesNoBase) {
  engine_ = [](StagedVersion&) { return absl::OkStatus(); };
  Start({});
  PushAndRefit(1);
  PushAndRefit(2);
  EXPECT_FALSE(traffic_.base_version.has_value());
  EXPECT_EQ(traffic_.wire_bytes, model_.bytes());
}

TEST_F(DeltaWorker, AnEngineThatKeepsSomeTensorsLeavesNoBase) {
  engine_ = [this](StagedVersion& staged) {
    Keep(staged).IgnoreError();
    in_use_.pop_back();
    return absl::OkStatus();
  };
  Start({});
  PushAndRefit(1);
  PushAndRefit(2);
  EXPECT_FALSE(traffic_.base_version.has_value());
}

TEST_F(DeltaWorker, TheWorkerKeepsTheBaseIfAskedTo) {
  engine_ = [](StagedVersion&) { return absl::OkStatus(); };
  Start({.keep_base = true});
  PushAndRefit(1);
  PushAndRefit(2);
  EXPECT_EQ(traffic_.base_version, 1u);
  EXPECT_LT(traffic_.wire_bytes, model_.bytes() / 40);
}

TEST_F(DeltaWorker, TheEngineProvidesTheBaseAlsoOfTheFirstPull) {
  ASSERT_NO_FATAL_FAILURE(Push(1));
  auto subscriber = Subscriber::Connect(WireTo(server_->address()));
  ASSERT_OK(subscriber);
  const auto first = (*subscriber)->Pull(PullOptions());
  ASSERT_OK(first);
  engine_ = [](StagedVersion&) { return absl::OkStatus(); };
  std::shared_ptr<const PullBase> base = BaseOf(*first);
  Start({.base = [&base] { return base; }});
  PushAndRefit(2);
  EXPECT_EQ(traffic_.base_version, 1u);
  EXPECT_LT(traffic_.wire_bytes, model_.bytes() / 40);
  base = nullptr;
  PushAndRefit(3);
  EXPECT_FALSE(traffic_.base_version.has_value());
}

TEST_F(DeltaWorker, DeltasCanBeTurnedOff) {
  Start({.deltas = false});
  PushAndRefit(1);
  PushAndRefit(2);
  EXPECT_FALSE(traffic_.base_version.has_value());
  EXPECT_THAT(traffic_.base_refused, IsEmpty());
}

TEST_F(DeltaWorker, AnEngineThatChangesItsTensorsGetsThemWhole) {
  Start({});
  PushAndRefit(1);
  in_use_[0].bytes[77] ^= std::byte{4};
  PushAndRefit(2);
  EXPECT_THAT(traffic_.base_refused, HasSubstr("weight"));
  PushAndRefit(3);
  EXPECT_EQ(traffic_.base_version, 2u);
  EXPECT_LT(traffic_.wire_bytes, model_.bytes() / 40);
}

TEST_F(DeltaWorker, AFailedInstallLeavesTheOldBase) {
  Start({});
  PushAndRefit(1);
  engine_ = [](StagedVersion&) { return absl::InternalError("busy"); };
  Push(2);
  EXPECT_THAT(worker_->Refit().status(), StatusIs(absl::StatusCode::kInternal, HasSubstr("busy")));
  engine_ = [this](StagedVersion& staged) { return Keep(staged); };
  ASSERT_OK(worker_->Refit());
  EXPECT_EQ(traffic_.base_version, 1u);
  EXPECT_LT(traffic_.wire_bytes, model_.bytes() / 40);
}

TEST_F(DeltaWorker, RollingBackCostsWhatChanged) {
  Start({});
  PushAndRefit(1);
  const auto first = model_.values;
  PushAndRefit(2);
  model_.values = first;
  ASSERT_OK(worker_->RollBack());
  EXPECT_EQ(traffic_.base_version, 2u);
  EXPECT_LT(traffic_.wire_bytes, model_.bytes() / 40);
}

TEST_F(DeltaWorker, AfterARestartOfTheServiceTheVersionComesWhole) {
  Start({});
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
}

}  // namespace
}  // namespace refit

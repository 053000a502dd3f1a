#include "client/worker/installed_versions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <thread>

#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

constexpr std::chrono::milliseconds kShort{20};
constexpr std::chrono::milliseconds kLong = std::chrono::seconds(20);

VersionSummary Committed(uint64_t number, uint64_t epoch = 0, std::optional<uint64_t> digest = std::nullopt) {
  VersionSummary version;
  version.version = number;
  version.trainer_epoch = epoch;
  version.state = VersionState::kCommitted;
  version.manifest_digest = digest;
  return version;
}

VersionSummary InState(VersionState state, uint64_t number) {
  VersionSummary version = Committed(number);
  version.state = state;
  return version;
}

class InstalledVersionsTest : public ::testing::Test {
 protected:
  InstalledVersionsTest() { options_.pull.worker = "w0"; }

  uint64_t Installed() const { return versions_.installed().value_or(VersionSummary{}).version; }

  WorkerOptions options_;
  InstalledVersions versions_{options_};
};

TEST_F(InstalledVersionsTest, HasNothingAtFirst) {
  EXPECT_EQ(versions_.installed(), std::nullopt);
  EXPECT_EQ(versions_.previous(), std::nullopt);
  EXPECT_EQ(versions_.torn(), std::nullopt);
  EXPECT_FALSE(versions_.of_other_run());
  EXPECT_FALSE(versions_.IsInstalled(Committed(1)));
  EXPECT_OK(versions_.CheckMayInstall(Committed(1), Way::kForward));
}

TEST_F(InstalledVersionsTest, RemembersTheOneBefore) {
  versions_.SetInstalled(Committed(1));
  versions_.SetInstalled(Committed(3));
  EXPECT_EQ(Installed(), 3u);
  EXPECT_EQ(versions_.previous()->version, 1u);
}

TEST_F(InstalledVersionsTest, OpenAndCommittedVersionsAreDueIfTheyAreNew) {
  versions_.SetInstalled(Committed(5));
  EXPECT_TRUE(versions_.IsDue(Committed(6)));
  EXPECT_TRUE(versions_.IsDue(InState(VersionState::kOpen, 6)));
  EXPECT_TRUE(versions_.IsDue(Committed(1, 1)));
  EXPECT_FALSE(versions_.IsDue(Committed(5)));
  EXPECT_FALSE(versions_.IsDue(Committed(4)));
  EXPECT_FALSE(versions_.IsDue(InState(VersionState::kRetired, 6)));
  EXPECT_FALSE(versions_.IsDue(InState(VersionState::kAborted, 6)));
}

TEST_F(InstalledVersionsTest, AfterARollBackOnlyWhatIsNewerThanBothIsDue) {
  versions_.SetInstalled(Committed(1));
  versions_.SetInstalled(Committed(2));
  versions_.SetInstalled(Committed(1));
  EXPECT_FALSE(versions_.IsDue(Committed(2)));
  EXPECT_TRUE(versions_.IsDue(Committed(3)));
}

TEST_F(InstalledVersionsTest, WhatFailedIsNotDueAgainButMayBeInstalled) {
  versions_.SetInstalled(Committed(1));
  versions_.SetFailed(Committed(2));
  EXPECT_FALSE(versions_.IsDue(Committed(2)));
  EXPECT_OK(versions_.CheckMayInstall(Committed(2), Way::kForward));
  EXPECT_EQ(Installed(), 1u);
}

TEST_F(InstalledVersionsTest, OnlyFollowStagesWhatHoldsItsInstalls) {
  VersionSummary held = Committed(1);
  held.installs_held = true;
  EXPECT_OK(versions_.CheckMayInstall(held, Way::kFollow));
  EXPECT_THAT(versions_.CheckMayInstall(held, Way::kForward), StatusIs(Code::kFailedPrecondition));
}

TEST_F(InstalledVersionsTest, GoesBackByRollBackOnly) {
  versions_.SetInstalled(Committed(3, 0, 33));
  versions_.SetInstalled(Committed(5));
  EXPECT_THAT(versions_.CheckMayInstall(Committed(3, 0, 33), Way::kForward),
              StatusIs(Code::kFailedPrecondition, AllOf(HasSubstr("version 3 is older"), HasSubstr("RollBack"))));
  EXPECT_OK(versions_.CheckMayInstall(Committed(3, 0, 33), Way::kBack));
  EXPECT_THAT(versions_.CheckMayInstall(Committed(3, 0, 34), Way::kBack),
              StatusIs(Code::kFailedPrecondition, HasSubstr("another version 3")));
}

TEST_F(InstalledVersionsTest, DoesNotLeapWithinARun) {
  options_.max_version_step = 10;
  EXPECT_OK(versions_.CheckMayInstall(Committed(1000), Way::kFollow));  // the first may be any
  versions_.SetInstalled(Committed(1000));
  EXPECT_OK(versions_.CheckMayInstall(Committed(1010), Way::kFollow));
  EXPECT_THAT(versions_.CheckMayInstall(Committed(1011), Way::kFollow),
              StatusIs(Code::kFailedPrecondition, HasSubstr("more than 10 beyond")));
  EXPECT_OK(versions_.CheckMayInstall(Committed(5000, 1), Way::kFollow));
}

TEST_F(InstalledVersionsTest, OneNumberWithOtherBytesIsOfAnotherRun) {
  versions_.SetInstalled(Committed(3, 0, 33));
  EXPECT_TRUE(versions_.IsInstalled(Committed(3, 0, 33)));
  EXPECT_TRUE(versions_.IsInstalled(Committed(3)));  // its digest is not known yet
  EXPECT_FALSE(versions_.IsInstalled(Committed(3, 0, 34)));
  EXPECT_THAT(versions_.CheckMayInstall(Committed(3, 0, 34), Way::kForward),
              StatusIs(Code::kFailedPrecondition, HasSubstr("has other bytes than version 3")));
}

TEST_F(InstalledVersionsTest, StaysWithAnotherRunAndSaysSoOnce) {
  versions_.SetInstalled(Committed(50));
  EXPECT_OK(versions_.ComplainOfOtherRun(Committed(2)));
  versions_.SetOtherRun(true);
  EXPECT_OK(versions_.ComplainOfOtherRun(InState(VersionState::kOpen, 2)));
  EXPECT_THAT(versions_.ComplainOfOtherRun(Committed(2)),
              StatusIs(Code::kFailedPrecondition, HasSubstr("accept_new_run")));
  EXPECT_OK(versions_.ComplainOfOtherRun(Committed(2)));
  EXPECT_FALSE(versions_.IsDue(Committed(2)));
  EXPECT_THAT(versions_.CheckMayInstall(Committed(2), Way::kForward),
              StatusIs(Code::kFailedPrecondition, HasSubstr("of another run")));
  EXPECT_OK(versions_.CheckMayInstall(Committed(51), Way::kForward));
  EXPECT_FALSE(versions_.IsInstalled(Committed(50)));
  versions_.SetInstalled(Committed(51));
  EXPECT_FALSE(versions_.of_other_run());
}

TEST_F(InstalledVersionsTest, NoticesThatTheServiceHasItAfterAll) {
  versions_.SetInstalled(Committed(50));
  EXPECT_FALSE(versions_.IsBackAtService(Committed(50)));
  versions_.SetOtherRun(true);
  EXPECT_FALSE(versions_.IsBackAtService(Committed(2)));
  EXPECT_TRUE(versions_.IsBackAtService(Committed(50)));
  EXPECT_OK(versions_.ComplainOfOtherRun(Committed(50)));
}

TEST_F(InstalledVersionsTest, LeavesItsRunIfItMay) {
  options_.accept_new_run = true;
  versions_.SetInstalled(Committed(50));
  EXPECT_FALSE(versions_.IsDue(Committed(2)));
  versions_.SetOtherRun(true);
  EXPECT_TRUE(versions_.IsDue(Committed(2)));
  EXPECT_OK(versions_.CheckMayInstall(Committed(2), Way::kForward));
  EXPECT_OK(versions_.ComplainOfOtherRun(Committed(2)));
}

TEST_F(InstalledVersionsTest, TornHasNothingUntilAWholeVersionCame) {
  options_.in_place = true;
  versions_.SetInstalled(Committed(1));
  EXPECT_FALSE(versions_.IsDue(InState(VersionState::kOpen, 2)));  // it might yet be aborted
  versions_.SetTorn(Committed(2));
  EXPECT_EQ(versions_.installed(), std::nullopt);
  EXPECT_EQ(versions_.torn()->version, 2u);
  EXPECT_EQ(versions_.previous()->version, 1u);
  EXPECT_FALSE(versions_.IsDue(Committed(1)));
  EXPECT_TRUE(versions_.IsDue(Committed(2)));
  versions_.SetTorn(Committed(3));
  EXPECT_FALSE(versions_.IsDue(Committed(2)));
  EXPECT_EQ(versions_.previous()->version, 1u);
  versions_.SetInstalled(Committed(3));
  EXPECT_EQ(versions_.torn(), std::nullopt);
  EXPECT_EQ(Installed(), 3u);
}

TEST_F(InstalledVersionsTest, WaitsUntilAVersionIsInstalled) {
  std::thread installer([this] {
    versions_.SetInstalled(Committed(1));
    versions_.SetInstalled(Committed(3));
  });
  EXPECT_OK(versions_.Await(2, kLong, std::nullopt));
  installer.join();
  EXPECT_THAT(versions_.Await(4, kShort, std::nullopt),
              StatusIs(Code::kDeadlineExceeded, AllOf(HasSubstr("worker w0"), HasSubstr("version 3 is in use"))));
  EXPECT_OK(versions_.Await(3, kShort, 0));
  EXPECT_THAT(versions_.Await(3, kShort, 7), StatusIs(Code::kDeadlineExceeded));
}

TEST_F(InstalledVersionsTest, WaitsForTheNewestRunThatWasHeardOf) {
  versions_.SetInstalled(Committed(3));
  versions_.Hear(InState(VersionState::kOpen, 1));
  EXPECT_OK(versions_.Await(3, kShort, std::nullopt));
  versions_.Hear(Committed(1, 7));
  EXPECT_THAT(versions_.Await(3, kShort, std::nullopt), StatusIs(Code::kDeadlineExceeded));
  versions_.SetInstalled(Committed(3, 7));
  EXPECT_OK(versions_.Await(3, kShort, std::nullopt));
  versions_.SetOtherRun(true);
  EXPECT_THAT(versions_.Await(3, kShort, std::nullopt),
              StatusIs(Code::kDeadlineExceeded, HasSubstr("is of another run")));
}

TEST_F(InstalledVersionsTest, WaitsEndForGood) {
  std::thread stopper([this] { versions_.EndWaits(); });
  EXPECT_THAT(versions_.Await(1, kLong, std::nullopt), StatusIs(Code::kCancelled, HasSubstr("worker w0 was stopped")));
  stopper.join();
  EXPECT_THAT(versions_.Await(1, kLong, std::nullopt), StatusIs(Code::kCancelled));
  versions_.SetInstalled(Committed(1));
  EXPECT_OK(versions_.Await(1, kLong, std::nullopt));
}

}  // namespace
}  // namespace refit

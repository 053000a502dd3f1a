// The fleet as the service sees it.
#include "server/fleet/worker_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/net/channel.h"
#include "common/net/states.h"
#include "tests/support/holds.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using Had = WorkerRegistry::Had;

TEST(WorkerRegistry, FollowsAPullToItsEnd) {
  WorkerRegistry registry;
  auto pull = registry.StartPull({"m", "w"}, "peer", 3, 100);
  pull->Sent({60, 6, SentChunk::Form::kDelta, 3});
  pull->Sent({40, 40});
  pull->Waited(std::chrono::nanoseconds(5));
  EXPECT_EQ(registry.List("m")[0].state(), v1::WORKER_STATE_PULLING);
  pull->Complete();
  pull->Fail(absl::InternalError("too late"));
  const v1::Worker worker = registry.List("")[0];
  EXPECT_EQ(worker.state(), v1::WORKER_STATE_COMPLETE);
  EXPECT_EQ(worker.sent_bytes(), 100u);
  EXPECT_EQ(worker.wire_bytes(), 46u);
  EXPECT_EQ(worker.raw_chunks(), 1u);
  EXPECT_EQ(worker.delta_chunks(), 1u);
  EXPECT_EQ(worker.changed_elements(), 3u);
  EXPECT_EQ(worker.waited_ns(), 5u);
  EXPECT_EQ(worker.last_complete_version(), 3u);
  EXPECT_TRUE(registry.List("other").empty());
}

TEST(WorkerRegistry, APullThatVanishesHasFailed) {
  WorkerRegistry registry;
  registry.StartPull({"m", "w"}, "peer", 3, 100)->Complete();
  registry.StartPull({"m", "w"}, "peer", 4, 100).reset();
  const v1::Worker worker = registry.List("m")[0];
  EXPECT_EQ(worker.state(), v1::WORKER_STATE_FAILED);
  EXPECT_EQ(worker.version(), 4u);
  EXPECT_EQ(worker.last_complete_version(), 3u);
  EXPECT_THAT(worker.last_error(), ::testing::HasSubstr("went away"));
}

TEST(WorkerRegistry, CountsPullsAlsoOfWorkersThatAreForgotten) {
  WorkerRegistry registry(/*max_workers=*/1);
  registry.StartPull({"m", "a"}, "peer", 1, 10)->Sent({4, 4});  // and vanishes
  auto resumed = registry.StartPull({"m", "a"}, "peer", 1, 6, /*resumed=*/true);
  resumed->Sent({6, 6});
  resumed->Complete();
  const v1::Worker worker = registry.List("m")[0];
  EXPECT_EQ(worker.pulls(), 2u);
  EXPECT_EQ(worker.resumed_pulls(), 1u);
  EXPECT_EQ(worker.failed_pulls(), 1u);
  EXPECT_EQ(worker.sent_bytes(), 6u);
  EXPECT_EQ(worker.total_sent_bytes(), 10u);
  registry.StartPull({"m", "b"}, "peer", 1, 5)->Complete();
  ASSERT_EQ(registry.List("m").size(), 1u);
  EXPECT_EQ(registry.List("m")[0].name(), "b");
  EXPECT_EQ(registry.totals().pulls, 3u);
  EXPECT_EQ(registry.totals().resumed_pulls, 1u);
  EXPECT_EQ(registry.totals().sent.tensor_bytes, 10u);
}

TEST(WorkerRegistry, ForgetsTheLongestSilentButNoneThatPulls) {
  WorkerRegistry registry;
  const auto pull = registry.StartPull({"m", "pulling"}, "peer", 1, 1);
  for (size_t i = 0; i < kMaxWorkers; ++i) {
    registry.StartPull({"m", absl::StrCat("w", i)}, "peer", 1, 10)->Complete();
  }
  std::vector<std::string> names;
  for (const v1::Worker& worker : registry.List("m")) names.push_back(worker.name());
  EXPECT_EQ(names.size(), kMaxWorkers);
  EXPECT_THAT(names, ::testing::Contains("pulling"));
  EXPECT_THAT(names, ::testing::Not(::testing::Contains("w0")));
}

TEST(WorkerRegistry, RefusesOneMoreOnlyWhileAllAreBusy) {
  WorkerRegistry registry(/*max_workers=*/2);
  auto watch = registry.StartWatch({"m", "a"}, "peer");
  auto another = registry.StartWatch({"m", "a"}, "peer");
  const auto pull = registry.StartPull({"m", "b"}, "peer", 1, 1);
  EXPECT_OK(registry.CheckRoom({"m", "a"}));
  EXPECT_OK(registry.CheckRoom({"m", "b"}));
  EXPECT_THAT(registry.CheckRoom({"m", "c"}),
              StatusIs(absl::StatusCode::kResourceExhausted, ::testing::HasSubstr("--max-workers")));
  another.reset();  // one of two
  EXPECT_THAT(registry.CheckRoom({"other", "a"}), StatusIs(absl::StatusCode::kResourceExhausted));
  watch.reset();
  EXPECT_OK(registry.CheckRoom({"m", "c"}));
  const auto third = registry.StartWatch({"m", "c"}, "peer");
  pull->Complete();
  EXPECT_OK(registry.CheckRoom({"m", "d"}));  // b is forgotten for it
}

v1::ReportWorkerRequest Installed(uint64_t version, uint64_t digest, uint64_t life = 0) {
  v1::ReportWorkerRequest report;
  report.set_model("m");
  report.set_worker("w");
  report.set_life(life);
  report.set_version(version);
  report.set_manifest_digest(digest);
  report.set_phase(v1::WORKER_PHASE_INSTALLED);
  return report;
}

std::vector<std::string> Labels(const WorkerRegistry& registry) {
  std::vector<std::string> labels;
  for (const v1::Worker& worker : registry.List("m")) labels.push_back(ShownName(worker));
  return labels;
}

TEST(WorkerRegistry, TwoLivesOfOneNameAreTwoWorkers) {
  WorkerRegistry registry;
  const auto first = registry.StartWatch({"m", "w", 0x1234567890abcdef}, "peer");
  EXPECT_THAT(Labels(registry), ElementsAre("w"));
  const auto second = registry.StartWatch({"m", "w", 0xfedcba0987654321}, "peer");
  EXPECT_THAT(Labels(registry), ElementsAre("w#1234", "w#fedc"));
  const auto alike = registry.StartWatch({"m", "w", 0x1234000000000000}, "peer");
  EXPECT_THAT(Labels(registry), ElementsAre("w#1234000000000000", "w#1234567890abcdef", "w#fedc"));
  EXPECT_THAT(registry.Report(Installed(3, 7, 0xfedcba0987654321), "peer", Had{{0, 3}, 7}), IsOkAndHolds(false));
  EXPECT_FALSE(registry.List("m")[0].has_installed_version());
  EXPECT_EQ(registry.List("m")[2].installed_version(), 3u);
}

TEST(WorkerRegistry, OfThoseThatAreGoneTheLastIsRemembered) {
  WorkerRegistry registry;
  for (uint64_t life = 1; life <= 5; ++life) {
    const auto watch = registry.StartWatch({"m", "w", life << 48}, "peer");
    EXPECT_THAT(registry.Report(Installed(life, 7, life << 48), "peer", Had{{0, life}, 7}), IsOkAndHolds(false));
    EXPECT_THAT(Labels(registry), Contains("w"));  // the one that is connected
    EXPECT_EQ(registry.List("m").size(), life == 1 ? 1u : 2u);
  }
  const auto workers = registry.List("m");
  ASSERT_EQ(workers.size(), 2u);
  EXPECT_FALSE(workers[0].connected());
  EXPECT_FALSE(workers[1].connected());
  EXPECT_EQ(workers[1].installed_version(), 5u);
  EXPECT_THAT(Labels(registry), ElementsAre("w#0004", "w#0005"));
}

TEST(WorkerRegistry, WhatTheServiceNeverHadIsOfAnotherRun) {
  WorkerRegistry registry;
  EXPECT_THAT(registry.Report(Installed(50, 7), "peer", std::nullopt), IsOkAndHolds(true));
  v1::Worker worker = registry.List("m")[0];
  EXPECT_EQ(worker.state(), v1::WORKER_STATE_OTHER_RUN);
  EXPECT_EQ(worker.foreign_version(), 50u);
  EXPECT_FALSE(worker.has_installed_version());
  EXPECT_THAT(registry.Report(Installed(1, 8), "peer", Had{{0, 1}, 8}), IsOkAndHolds(false));
  worker = registry.List("m")[0];
  EXPECT_EQ(worker.state(), v1::WORKER_STATE_INSTALLED);
  EXPECT_EQ(worker.installed_version(), 1u);
  EXPECT_EQ(worker.installed_digest(), 8u);
  EXPECT_FALSE(worker.has_foreign_version());
  // Said again, after the service has forgotten that version, it is as true as before; of other bytes it is not.
  EXPECT_THAT(registry.Report(Installed(1, 8), "peer", std::nullopt), IsOkAndHolds(false));
  EXPECT_THAT(registry.Report(Installed(1, 9), "peer", std::nullopt), IsOkAndHolds(true));
  EXPECT_FALSE(registry.List("m")[0].has_installed_version());
}

TEST(WorkerRegistry, AFullListFitsIntoOneMessage) {
  WorkerRegistry registry;
  for (size_t i = 0; i < kMaxWorkers; ++i) {
    const std::string name = absl::StrCat(i, std::string(195, 'n'));
    registry.StartPull({std::string(256, 'm'), name}, std::string(64, 'p'), ~uint64_t{0}, ~uint64_t{0})
        ->Fail(absl::InternalError(std::string(5000, 'e')));
  }
  v1::ListWorkersResponse response;
  for (const v1::Worker& worker : registry.List("")) *response.add_workers() = worker;
  EXPECT_EQ(response.workers_size(), static_cast<int>(kMaxWorkers));
  EXPECT_LT(response.ByteSizeLong(), static_cast<size_t>(kMaxMessageBytes));
}

}  // namespace
}  // namespace refit

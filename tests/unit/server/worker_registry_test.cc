// The fleet as the service sees it.
#include "server/worker_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/net/channel.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

TEST(WorkerRegistry, FollowsAPullToItsEnd) {
  WorkerRegistry registry;
  auto pull = registry.StartPull("m", "w", "peer", 3, 100);
  pull->Sent(60);
  pull->Sent(40);
  pull->Waited(absl::Nanoseconds(5));
  EXPECT_EQ(registry.List("m")[0].state(), v1::WORKER_STATE_PULLING);
  pull->Complete();
  pull->Fail(absl::InternalError("too late"));
  const v1::Worker worker = registry.List("")[0];
  EXPECT_EQ(worker.state(), v1::WORKER_STATE_COMPLETE);
  EXPECT_EQ(worker.sent_bytes(), 100u);
  EXPECT_EQ(worker.waited_ns(), 5u);
  EXPECT_EQ(worker.last_complete_version(), 3u);
  EXPECT_TRUE(registry.List("other").empty());
}

TEST(WorkerRegistry, APullThatVanishesHasFailed) {
  WorkerRegistry registry;
  registry.StartPull("m", "w", "peer", 3, 100)->Complete();
  registry.StartPull("m", "w", "peer", 4, 100).reset();
  const v1::Worker worker = registry.List("m")[0];
  EXPECT_EQ(worker.state(), v1::WORKER_STATE_FAILED);
  EXPECT_EQ(worker.version(), 4u);
  EXPECT_EQ(worker.last_complete_version(), 3u);
  EXPECT_THAT(worker.last_error(), ::testing::HasSubstr("went away"));
}

TEST(WorkerRegistry, CountsPullsAlsoOfWorkersThatAreForgotten) {
  WorkerRegistry registry(/*max_workers=*/1);
  registry.StartPull("m", "a", "peer", 1, 10)->Sent(4);  // and vanishes
  auto resumed = registry.StartPull("m", "a", "peer", 1, 6, /*resumed=*/true);
  resumed->Sent(6);
  resumed->Complete();
  const v1::Worker worker = registry.List("m")[0];
  EXPECT_EQ(worker.pulls(), 2u);
  EXPECT_EQ(worker.resumed_pulls(), 1u);
  EXPECT_EQ(worker.failed_pulls(), 1u);
  EXPECT_EQ(worker.sent_bytes(), 6u);
  EXPECT_EQ(worker.total_sent_bytes(), 10u);
  registry.StartPull("m", "b", "peer", 1, 5)->Complete();
  ASSERT_EQ(registry.List("m").size(), 1u);
  EXPECT_EQ(registry.List("m")[0].name(), "b");
  EXPECT_EQ(registry.totals().pulls, 3u);
  EXPECT_EQ(registry.totals().resumed_pulls, 1u);
  EXPECT_EQ(registry.totals().sent_bytes, 10u);
}

TEST(WorkerRegistry, ForgetsTheLongestSilentButNoneThatPulls) {
  WorkerRegistry registry;
  const auto pull = registry.StartPull("m", "pulling", "peer", 1, 1);
  for (size_t i = 0; i < WorkerRegistry::kMaxWorkers; ++i) {
    registry.StartPull("m", absl::StrCat("w", i), "peer", 1, 10)->Complete();
  }
  std::vector<std::string> names;
  for (const v1::Worker& worker : registry.List("m")) names.push_back(worker.name());
  EXPECT_EQ(names.size(), WorkerRegistry::kMaxWorkers);
  EXPECT_THAT(names, ::testing::Contains("pulling"));
  EXPECT_THAT(names, ::testing::Not(::testing::Contains("w0")));
}

TEST(WorkerRegistry, RefusesOneMoreOnlyWhileAllAreBusy) {
  WorkerRegistry registry(/*max_workers=*/2);
  registry.Watching("m", "a", "peer");
  registry.Watching("m", "a", "peer");
  const auto pull = registry.StartPull("m", "b", "peer", 1, 1);
  EXPECT_OK(registry.CheckRoom("m", "a"));
  EXPECT_OK(registry.CheckRoom("m", "b"));
  EXPECT_THAT(registry.CheckRoom("m", "c"),
              StatusIs(absl::StatusCode::kResourceExhausted, ::testing::HasSubstr("--max-workers")));
  registry.WatchEnded("m", "a");  // one of two
  EXPECT_THAT(registry.CheckRoom("other", "a"), StatusIs(absl::StatusCode::kResourceExhausted));
  registry.WatchEnded("m", "a");
  EXPECT_OK(registry.CheckRoom("m", "c"));
  registry.Watching("m", "c", "peer");
  pull->Complete();
  EXPECT_OK(registry.CheckRoom("m", "d"));  // b is forgotten for it
}

TEST(WorkerRegistry, AFullListFitsIntoOneMessage) {
  WorkerRegistry registry;
  for (size_t i = 0; i < WorkerRegistry::kMaxWorkers; ++i) {
    const std::string name = absl::StrCat(i, std::string(195, 'n'));
    registry.StartPull(std::string(256, 'm'), name, std::string(64, 'p'), ~uint64_t{0}, ~uint64_t{0})
        ->Fail(absl::InternalError(std::string(5000, 'e')));
  }
  v1::ListWorkersResponse response;
  for (const v1::Worker& worker : registry.List("")) *response.add_workers() = worker;
  EXPECT_EQ(response.workers_size(), static_cast<int>(WorkerRegistry::kMaxWorkers));
  EXPECT_LT(response.ByteSizeLong(), static_cast<size_t>(kMaxMessageBytes));
}

}  // namespace
}  // namespace refit

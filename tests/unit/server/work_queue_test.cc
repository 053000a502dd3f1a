#include "server/process/work_queue.h"

#include <gtest/gtest.h>

#include <atomic>

#include "absl/synchronization/notification.h"

namespace refit {
namespace {

TEST(WorkQueue, RunsEverythingBeforeItEnds) {
  std::atomic<int> ran{0};
  {
    WorkQueue queue(3);
    EXPECT_EQ(queue.threads(), 3);
    for (int i = 0; i < 1000; ++i) queue.Submit([&] { ++ran; });
  }
  EXPECT_EQ(ran, 1000);
}

TEST(WorkQueue, SaysHowMuchWaits) {
  absl::Notification begun;
  absl::Notification release;
  WorkQueue queue(1);
  queue.Submit([&] {
    begun.Notify();
    release.WaitForNotification();
  });
  begun.WaitForNotification();
  EXPECT_EQ(queue.waiting(), 0u);
  queue.Submit([] {});
  queue.Submit([] {});
  EXPECT_EQ(queue.waiting(), 2u);
  release.Notify();
}

TEST(ForEachTogether, DoesEachOnce) {
  WorkQueue queue(3);
  for (const size_t count : {0, 1, 2, 3, 4, 1000}) {
    std::vector<std::atomic<int>> done(count);
    ForEachTogether(queue, count, [&](size_t i) { ++done[i]; });
    for (const std::atomic<int>& times : done) EXPECT_EQ(times, 1);
  }
}

TEST(ForEachTogether, OthersHelp) {
  WorkQueue queue(1);
  absl::Notification helped;
  std::atomic<int> first{0};
  ForEachTogether(queue, 2, [&](size_t) {
    if (first++ == 0) {
      EXPECT_TRUE(helped.WaitForNotificationWithTimeout(absl::Seconds(30)));
    } else {
      helped.Notify();
    }
  });
}

TEST(ForEachTogether, NeedsNobody) {
  absl::Notification release;
  int done = 0;
  WorkQueue queue(1);
  queue.Submit([&] { release.WaitForNotification(); });
  ForEachTogether(queue, 5, [&](size_t) { ++done; });
  EXPECT_EQ(done, 5);
  release.Notify();  // whoever comes to help now finds nothing left
}

TEST(ForEachTogether, MayBeCalledOnTheQueueItself) {
  std::atomic<int> done{0};
  {
    WorkQueue queue(2);
    for (int i = 0; i < 10; ++i) {
      queue.Submit([&] { ForEachTogether(queue, 10, [&](size_t) { ++done; }); });
    }
  }
  EXPECT_EQ(done, 100);
}

TEST(Strand, RunsInOrderAndOneAtATime) {
  std::vector<int> order;  // no lock: the strand is the lock
  {
    WorkQueue queue(4);
    auto strand = std::make_shared<Strand>(queue);
    for (int i = 0; i < 1000; ++i) strand->Post([&order, i] { order.push_back(i); });
  }
  ASSERT_EQ(order.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[i], i);
}

TEST(Strand, DoesNotHoldUpOthers) {
  WorkQueue queue(2);
  auto blocked = std::make_shared<Strand>(queue);
  auto free = std::make_shared<Strand>(queue);
  absl::Notification release;
  absl::Notification went_on;
  blocked->Post([&] { release.WaitForNotification(); });
  free->Post([&] { went_on.Notify(); });
  EXPECT_TRUE(went_on.WaitForNotificationWithTimeout(absl::Seconds(30)));
  release.Notify();
}

TEST(Strand, WorkMayPostMoreWork) {
  absl::Notification done;
  WorkQueue queue(1);
  auto strand = std::make_shared<Strand>(queue);
  strand->Post([&] { strand->Post([&] { done.Notify(); }); });
  EXPECT_TRUE(done.WaitForNotificationWithTimeout(absl::Seconds(30)));
}

}  // namespace
}  // namespace refit

#include "refit/fork_guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "tests/support/forked.h"

namespace refit {
namespace {

// Its destructor tells.
class Told {
 public:
  explicit Told(std::atomic<int>& count) : count_(count) {}
  ~Told() { ++count_; }
  Told(const Told&) = delete;
  Told& operator=(const Told&) = delete;

 private:
  std::atomic<int>& count_;
};

TEST(ForkGuard, KnowsTheProcessInWhichItWasMade) {
  const ForkGuard guard;
  const uint64_t forks = ForksBegun();
  EXPECT_FALSE(guard.forked());
  EXPECT_TRUE(guard.Check("it").ok());
  EXPECT_EQ(InChild([&] {
              if (!guard.forked()) return 1;
              if (ForkGuard().forked()) return 2;
              const ForkGuard child;
              return InChild([&] { return guard.forked() && child.forked() ? 0 : 3; });
            }),
            0);
  EXPECT_FALSE(guard.forked());
  EXPECT_EQ(ForksBegun(), forks + 1);
}

TEST(ForkGuard, SaysWhatToDo) {
  const ForkGuard guard;
  EXPECT_EQ(InChild([&] {
              const absl::Status status = guard.Check("publisher to a:1");
              const std::string message(status.message());
              const bool names = message.find("publisher to a:1") == 0 && message.find("fork") != std::string::npos &&
                                 message.find("spawn") != std::string::npos;
              return absl::IsFailedPrecondition(status) && names ? 0 : 1;
            }),
            0);
}

TEST(OwnedByProcess, IsDestroyedOnlyWhereItWasMade) {
  std::atomic<int> destroyed{0};
  {
    OwnedByProcess<Told> owned = MakeOwnedByProcess<Told>(destroyed);
    std::shared_ptr<Told> shared = MakeOwnedByProcess<Told>(destroyed);
    EXPECT_EQ(InChild([&] {
                owned.reset();
                shared.reset();
                if (destroyed != 0) return 1;
                MakeOwnedByProcess<Told>(destroyed).reset();
                return destroyed == 1 ? 0 : 2;
              }),
              0);
    EXPECT_EQ(destroyed, 0);
  }
  EXPECT_EQ(destroyed, 2);
}

// glibc waits for those that wait, when a condition variable goes; in a child they never come.
TEST(OwnedByProcess, DoesNotWaitInAChildForThreadsThatAreNotThere) {
  struct Waits {
    std::mutex mutex;
    std::condition_variable changed;
    bool waiting = false;
    bool over = false;
  };
  OwnedByProcess<Waits> waits = MakeOwnedByProcess<Waits>();
  std::thread waiter([&] {
    std::unique_lock lock(waits->mutex);
    waits->waiting = true;
    waits->changed.notify_all();
    waits->changed.wait(lock, [&] { return waits->over; });
  });
  {
    std::unique_lock lock(waits->mutex);
    waits->changed.wait(lock, [&] { return waits->waiting; });
  }
  EXPECT_EQ(InChild([&] {
              waits.reset();
              return 0;
            }),
            0);
  {
    const std::lock_guard lock(waits->mutex);
    waits->over = true;
    waits->changed.notify_all();
  }
  waiter.join();
}

}  // namespace
}  // namespace refit

#include "server/access/counters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "common/net/status.h"
#include "server/access/limit_reached.h"

namespace refit {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

TEST(FailureCountTest, CountsByCode) {
  FailureCount failures;
  failures.Add(absl::OkStatus());
  EXPECT_THAT(failures.Get(), IsEmpty());
  failures.Add(absl::DataLossError("x"));
  failures.Add(absl::DataLossError("y"));
  failures.Add(absl::UnauthenticatedError("z"));
  failures.Add(absl::Status(static_cast<absl::StatusCode>(99), "of no known code"));
  EXPECT_THAT(failures.Get(), ElementsAre(Pair("DATA_LOSS", 2), Pair("UNAUTHENTICATED", 1)));
}

TEST(LimitCountTest, CountsByFlagHoweverTheErrorWasAnnotated) {
  LimitCount limits;
  limits.Add(absl::OkStatus());
  limits.Add(absl::ResourceExhaustedError("no limit of ours (--max-pulls)"));
  EXPECT_THAT(limits.Get(), IsEmpty());
  const absl::Status status = Annotate(LimitReached("--max-pulls", "too many"), "pull of version 3");
  EXPECT_EQ(status.message(), "pull of version 3: too many");
  limits.Add(status);
  limits.Add(LimitReached("--memory", "full"));
  limits.Add(LimitReached("--memory", "full"));
  EXPECT_THAT(limits.Get(), ElementsAre(Pair("--max-pulls", 1), Pair("--memory", 2)));
}

TEST(CountersTest, LoseNothingBetweenThreads) {
  Counters counters;
  std::array<std::thread, 4> threads;
  for (std::thread& thread : threads) {
    thread = std::thread([&] {
      for (int n = 0; n < 1000; ++n) {
        counters.failed_pulls.Add(absl::AbortedError(""));
        counters.limits.Add(LimitReached("--memory", ""));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(counters.failed_pulls.Get(), ElementsAre(Pair("ABORTED", 4000)));
  EXPECT_THAT(counters.limits.Get(), ElementsAre(Pair("--memory", 4000)));
}

}  // namespace
}  // namespace refit

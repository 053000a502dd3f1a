#include "common/net/repeated_messages.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

using std::chrono::seconds;

constexpr auto kSilence = RepeatedMessages::kSilence;

TEST(RepeatedMessages, EachPassesOnceInAWhileAndSaysHowManyDidNot) {
  RepeatedMessages messages;
  const auto begin = RepeatedMessages::Clock::now();
  EXPECT_EQ(messages.Pass("handshake failed", begin), "handshake failed");
  for (int i = 1; i <= 200; ++i) EXPECT_EQ(messages.Pass("handshake failed", begin + seconds(1)), std::nullopt);
  EXPECT_EQ(messages.Pass("out of descriptors", begin + seconds(1)), "out of descriptors");
  EXPECT_EQ(messages.Pass("handshake failed", begin + kSilence),
            "handshake failed (and 200 more like it since the last one)");
  EXPECT_EQ(messages.Pass("handshake failed", begin + 2 * kSilence), "handshake failed");
}

TEST(RepeatedMessages, DetailsWithTheTimeMakeNoDifference) {
  RepeatedMessages messages;
  const auto begin = RepeatedMessages::Clock::now();
  EXPECT_EQ(messages.Pass("no file {created_time:1}", begin), "no file {created_time:1}");
  EXPECT_EQ(messages.Pass("no file {created_time:2}", begin), std::nullopt);
  EXPECT_EQ(messages.Pass("no files {created_time:2}", begin), "no files {created_time:2}");
}

TEST(RepeatedMessages, OfVeryManyTheOldestIsForgotten) {
  RepeatedMessages messages;
  const auto begin = RepeatedMessages::Clock::now();
  for (size_t i = 0; i <= RepeatedMessages::kRemembered; ++i) {
    EXPECT_NE(messages.Pass(absl::StrCat("message ", i), begin), std::nullopt);
  }
  EXPECT_EQ(messages.Pass("message 1", begin), std::nullopt);
  EXPECT_EQ(messages.Pass("message 0", begin), "message 0");
}

}  // namespace
}  // namespace refit

#include "server/access/peer_streams.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(PeerStreams, CountsHostsWhateverThePort) {
  PeerStreams table(2);
  auto first = table.Enter("ipv4:10.0.0.7:1");
  auto second = table.Enter("ipv4:10.0.0.7:2");
  ASSERT_OK(first);
  ASSERT_OK(second);
  EXPECT_THAT(table.Enter("ipv4:10.0.0.7:3"),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("ipv4:10.0.0.7 has 2 streams"), HasSubstr("--max-streams-per-peer"))));
  EXPECT_OK(table.Enter("ipv4:10.0.0.8:1"));
  EXPECT_OK(table.Enter("ipv6:%5B::1%5D:1"));
}

TEST(PeerStreams, AStreamThatEndsMakesRoom) {
  PeerStreams table(1);
  {
    auto first = table.Enter("unix:/a");
    ASSERT_OK(first);
    const PeerStreams::Stream moved = *std::move(first);
    EXPECT_THAT(table.Enter("unix:/a"), StatusIs(absl::StatusCode::kResourceExhausted));
  }
  EXPECT_OK(table.Enter("unix:/a"));
  EXPECT_OK(table.Enter("unix:/a"));
}

}  // namespace
}  // namespace refit

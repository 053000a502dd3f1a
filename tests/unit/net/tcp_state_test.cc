// What the kernel says of connections, and what it means.
#include "common/net/tcp_state.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(TcpState, OfAConnectionThatExists) {
  for (const bool v6 : {false, true}) {
    const int listener = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in6 address6 = {};
    address6.sin6_family = AF_INET6;
    address6.sin6_addr = in6addr_loopback;
    sockaddr_in address4 = {};
    address4.sin_family = AF_INET;
    address4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const address = v6 ? reinterpret_cast<sockaddr*>(&address6) : reinterpret_cast<sockaddr*>(&address4);
    socklen_t size = v6 ? sizeof(address6) : sizeof(address4);
    if (bind(listener, address, size) != 0) {
      ASSERT_TRUE(v6);  // a host without IPv6
      close(listener);
      continue;
    }
    ASSERT_EQ(listen(listener, 1), 0);
    ASSERT_EQ(getsockname(listener, address, &size), 0);
    const int client = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(connect(client, address, size), 0);
    const uint16_t port = ntohs(v6 ? address6.sin6_port : address4.sin_port);
    const auto state = StateOfConnection(absl::StrCat(v6 ? "ipv6:%5B::1%5D:" : "ipv4:127.0.0.1:", port));
    if (absl::IsUnavailable(state.status())) GTEST_SKIP() << state.status();
    ASSERT_OK(state);
    EXPECT_LT(state->round_trip, seconds(5));
    close(client);
    close(listener);
  }
}

TEST(TcpState, OfNoConnection) {
  for (const char* peer : {"unix:/tmp/socket", "unix:", "", "ipv4:127.0.0.1", "ipv4:nowhere:1", "ipv6:[::1]:x"}) {
    EXPECT_EQ(StateOfConnection(peer).status().code(), absl::StatusCode::kNotFound) << peer;
  }
  EXPECT_NE(StateOfConnection("ipv4:192.0.2.1:9").status().code(), absl::StatusCode::kOk);
}

constexpr TcpBuffers kBuffers = {4 << 20, 6 << 20};

TEST(HeldBack, NamesTheSettingAndWhatItAllows) {
  const TcpState before = {milliseconds(100), seconds(1), seconds(1), seconds(1)};
  const TcpState full = {milliseconds(100), seconds(11), seconds(9), seconds(1)};
  EXPECT_THAT(HeldBackBy(before, full, kBuffers),
              AllOf(HasSubstr("net.ipv4.tcp_wmem allows 4194304 bytes"), HasSubstr("80 %"), HasSubstr("100.0 ms"),
                    HasSubstr("at most 41.9 MB/s")));
  const TcpState slow = {milliseconds(100), seconds(11), seconds(1), seconds(6)};
  EXPECT_THAT(HeldBackBy(before, slow, kBuffers), AllOf(HasSubstr("net.ipv4.tcp_rmem"), HasSubstr("50 %")));
}

TEST(HeldBack, NothingHoldsBack) {
  const TcpState before = {milliseconds(100), seconds(1), seconds(0), seconds(0)};
  EXPECT_THAT(HeldBackBy(before, {milliseconds(100), seconds(11), seconds(1), seconds(1)}, kBuffers), IsEmpty());
  EXPECT_THAT(HeldBackBy(before, before, kBuffers), IsEmpty());
  // A short path is filled by any buffer: there it was full because the worker was slow.
  EXPECT_THAT(HeldBackBy(before, {milliseconds(1), seconds(11), seconds(9), seconds(0)}, kBuffers), IsEmpty());
}

TEST(TcpBuffersOfTheKernel, AreRead) {
  const auto buffers = LargestTcpBuffers();
  ASSERT_TRUE(buffers.has_value());
  EXPECT_GE(buffers->send, 4096u);
  EXPECT_GE(buffers->receive, 4096u);
}

}  // namespace
}  // namespace refit

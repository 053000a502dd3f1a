#include "common/net/address.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/escaping.h"

namespace refit {
namespace {

using namespace std::string_literals;

TEST(IsLocalTest, KnowsThisHost) {
  for (const std::string& local :
       {"127.0.0.1:1"s, "127.255.255.254:1"s, "ipv4:127.0.0.1:44"s, "localhost:1"s, "LocalHost:1"s, "dns:localhost:1"s,
        "dns:///localhost:1"s, "[::1]:5"s, "[0:0:0:0:0:0:0:1]:5"s, "ipv6:[::1]:5"s, "ipv6:%5B::1%5D:5"s,
        "[::ffff:127.0.0.1]:5"s, "unix:/tmp/x"s, "unix:"s, "unix-abstract:x"s}) {
    EXPECT_TRUE(IsLocal(local)) << local;
  }
}

TEST(IsLocalTest, IsNotFooled) {
  for (const std::string& remote :
       {"10.0.0.1:1"s, "ipv4:192.168.1.1:127"s, "example.org:1"s, "ipv6:[fe80::1]:5"s, ""s, ":50051"s,
        // Names that only begin or end like loopback.
        "localhost.evil:1"s, "localhost.:1"s, "evil.localhost:1"s, "127.evil.com:1"s, "127.0.0.1.evil.com:1"s,
        "127.0.0.1@evil.com:1"s, "evil.com/127.0.0.1:1"s, "dns://127.0.0.1/evil.com:1"s, "127.1:1"s, "0177.0.0.1:1"s,
        "2130706433:1"s, "[::1].evil:1"s, "[::1%25eth0]:1"s, "unixevil:1"s,
        // Everywhere.
        "0.0.0.0:1"s, "[::]:1"s, "*:1"s, "[::ffff:10.0.0.1]:1"s, "[::ffff:0.0.0.0]:1"s,
        // Two addresses, one of them elsewhere; a port as well as a host; a zero byte.
        "ipv4:127.0.0.1:1,10.0.0.1:1"s, "ipv4:10.0.0.1:1,127.0.0.1:1"s, "localhost"s, "127.0.0.1"s,
        "localhost\0.evil:1"s, "127.0.0.1\0:1"s, "unix:/tmp/x\0y"s, " localhost:1"s, "localhost :1"s}) {
    EXPECT_FALSE(IsLocal(remote)) << absl::CEscape(remote);
  }
}

}  // namespace
}  // namespace refit

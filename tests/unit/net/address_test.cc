#include "common/net/address.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using namespace std::string_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;

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

TEST(UnixPathTest, IsThatOfASocketWithAPathOnly) {
  EXPECT_EQ(UnixPath("unix:/tmp/x"), "/tmp/x");
  EXPECT_EQ(UnixPath("unix:///tmp/x"), "/tmp/x");
  EXPECT_EQ(UnixPath("unix:relative"), "relative");
  for (const char* other : {"unix:", "unix-abstract:x", "127.0.0.1:1", "host:1", ""}) EXPECT_EQ(UnixPath(other), "");
}

TEST(CheckAddressTest, TakesWhatLeadsSomewhere) {
  for (const char* good : {"127.0.0.1:1", "host:65535", "a.b-c.example:50051", "[::1]:5", "[fe80::1%eth0]:5",
                           "unix:/tmp/x", "unix:relative", "unix:///tmp/x", "unix-abstract:x", "dns:host:1",
                           "dns:///host:1", "ipv4:10.0.0.1:1,10.0.0.2:1", "ipv6:[::1]:5"}) {
    EXPECT_OK(CheckAddress(good, 1)) << good;
  }
  EXPECT_OK(CheckAddress("127.0.0.1:0"));
  EXPECT_OK(CheckAddress(absl::StrCat("unix:", std::string(107, 'p'))));
}

TEST(CheckAddressesTest, TakesOneOrSeveral) {
  for (const char* good :
       {"a:1", "a:1,b:2", " a:1 , dns:///b:2,unix:/c", "[::1]:5,[::2]:5", "ipv4:10.0.0.1:1,10.0.0.2:1"}) {
    EXPECT_OK(CheckAddresses(good)) << good;
  }
  EXPECT_EQ(SplitAddresses(" a:1 ,b:2"), (std::vector<std::string>{"a:1", "b:2"}));
  for (const char* bad : {"", ",", "a:1,", "a:1,b", "a:1,a:1", "a:1,b:0"}) {
    EXPECT_THAT(CheckAddresses(bad), StatusIs(absl::StatusCode::kInvalidArgument)) << bad;
  }
  EXPECT_THAT(CheckOneAddress("a:1,b:2"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("expected the address of one service")));
}

TEST(NameToLookUpTest, IsThatOfAllAddressesOfAName) {
  const auto name = NameToLookUp("dns:///relays.example:50051");
  ASSERT_TRUE(name.has_value());
  EXPECT_EQ(name->name, "relays.example");
  EXPECT_EQ(name->port, "50051");
  for (const char* other : {"relays.example:1", "dns:relays.example:1", "unix:/dns:///a:1", ""}) {
    EXPECT_FALSE(NameToLookUp(other).has_value()) << other;
  }
}

TEST(CheckAddressTest, SaysWhatIsWrong) {
  const std::string too_long = absl::StrCat("unix:///", std::string(107, 'p'));
  const std::pair<const char*, const char*> cases[] = {
      {"host:99999", "port 99999"},
      {"host:0", "from 1 to 65535"},
      {"host:65536", "port 65536"},
      {"host:99999999999999", "port 99999999999999"},
      {"dns:///host:99999", "port 99999"},
      {"ipv4:10.0.0.1:1,10.0.0.2:99999", "port 99999"},
      {"host", "names no port"},
      {"host:", "names no port"},
      {"host:http", "names no port"},
      {"host:-1", "names no port"},
      {"[::1]", "names no port"},
      {":50051", "names no host"},
      {"::1:50051", "brackets"},
      {"http://host:50051", "is a URL"},
      {"https://host", "is a URL"},
      {"grpc://host:1", "is a URL"},
      {too_long.c_str(), "a path of 108 bytes"},
      {"unix:", "no path"},
      {"unix://", "no path"},
      {"", "names no port"},
  };
  for (const auto& [bad, why] : cases) {
    EXPECT_THAT(CheckAddress(bad, 1), StatusIs(absl::StatusCode::kInvalidArgument,
                                               AllOf(HasSubstr(why), HasSubstr(bad), HasSubstr("expected host:port"))))
        << bad;
  }
}

}  // namespace
}  // namespace refit

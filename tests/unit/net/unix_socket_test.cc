#include "common/net/unix_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::chrono::steady_clock::time_point In(std::chrono::milliseconds time) {
  return std::chrono::steady_clock::now() + time;
}

class UnixSocketTest : public ::testing::Test {
 protected:
  // As a killed process leaves it.
  void LeaveBehind() {
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    std::strncpy(name.sun_path, path_.c_str(), sizeof(name.sun_path) - 1);
    const FileDescriptor dead(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(bind(dead.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)), 0);
    ASSERT_EQ(listen(dead.get(), 1), 0);
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_.Path("socket");
};

TEST_F(UnixSocketTest, IsConnectedToAndLeavesNothing) {
  {
    auto listener = PacketListener::Open(path_, std::nullopt);
    ASSERT_OK(listener);
    EXPECT_OK(ConnectPackets(path_, In(std::chrono::seconds(5))));
  }
  EXPECT_THAT(folder_.Names(), IsEmpty());
  EXPECT_THAT(ConnectPackets(path_, In(std::chrono::seconds(5))),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("No such file")));
}

TEST_F(UnixSocketTest, ALiveOneKeepsItsPlace) {
  auto first = PacketListener::Open(path_, std::nullopt);
  ASSERT_OK(first);
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(PacketListener::Open(path_, std::nullopt),
                StatusIs(absl::StatusCode::kUnavailable, AllOf(HasSubstr(path_), HasSubstr("a running process"))));
    EXPECT_OK(ConnectPackets(path_, In(std::chrono::seconds(5)))) << "the first one must still be there";
  }
}

TEST_F(UnixSocketTest, WhatADeadOneLeftIsReplaced) {
  LeaveBehind();
  struct stat found = {};
  ASSERT_EQ(stat(path_.c_str(), &found), 0);
  EXPECT_OK(CheckPathIsFree(path_));
  auto listener = PacketListener::Open(path_, std::nullopt);
  ASSERT_OK(listener);
  EXPECT_OK(ConnectPackets(path_, In(std::chrono::seconds(5))));
}

TEST_F(UnixSocketTest, WhatIsNoSocketIsNeverTouched) {
  std::ofstream(path_) << "weights";
  for (const std::string& path : {path_, folder_.Path("")}) {
    EXPECT_THAT(PacketListener::Open(path, std::nullopt),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no socket is there")));
  }
  std::string kept;
  std::ifstream(path_) >> kept;
  EXPECT_EQ(kept, "weights");
}

// Two instances that start over the same socket that was left behind.
TEST_F(UnixSocketTest, TheFileOfASuccessorStays) {
  auto first = PacketListener::Open(path_, std::nullopt);
  ASSERT_OK(first);
  ASSERT_EQ(unlink(path_.c_str()), 0);
  auto second = PacketListener::Open(path_, std::nullopt);
  ASSERT_OK(second);
  { const PacketListener ends = *std::move(first); }
  EXPECT_THAT(folder_.Names(), ElementsAre("socket"));
  EXPECT_OK(ConnectPackets(path_, In(std::chrono::seconds(5))));
}

TEST_F(UnixSocketTest, HasThePermissionsThatWereAskedFor) {
  for (const mode_t mode : {0600U, 0660U, 0666U}) {
    auto listener = PacketListener::Open(path_, mode);
    ASSERT_OK(listener);
    struct stat made = {};
    ASSERT_EQ(stat(path_.c_str(), &made), 0);
    EXPECT_EQ(made.st_mode & 0777U, mode);
  }
}

TEST_F(UnixSocketTest, APathThatIsTooLongIsNamed) {
  const std::string path = folder_.Path(std::string(108, 'p'));
  EXPECT_THAT(PacketListener::Open(path, std::nullopt),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("107 at most")));
  EXPECT_THAT(ConnectPackets(path, In(std::chrono::seconds(5))),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("107 at most")));
}

TEST_F(UnixSocketTest, ConnectingEndsWhereNobodyAccepts) {
  auto listener = PacketListener::Open(path_, std::nullopt);
  ASSERT_OK(listener);
  ASSERT_EQ(listen(listener->fd(), 0), 0);  // room for one that nobody has accepted
  const auto first = ConnectPackets(path_, In(std::chrono::seconds(5)));
  ASSERT_OK(first);
  EXPECT_THAT(ConnectPackets(path_, In(std::chrono::milliseconds(50))),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("nobody accepts")));
}

}  // namespace
}  // namespace refit

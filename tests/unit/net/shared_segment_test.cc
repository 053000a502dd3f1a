#include "common/net/shared_segment.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <string>

#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::HasSubstr;

constexpr size_t kSize = 2 << 20;

std::shared_ptr<Buffer> Shared() {
  auto buffer = Buffer::Allocate(kSize, Backing::kShared);
  EXPECT_OK(buffer);
  std::memset((*buffer)->data(), 0x5A, kSize);
  return *std::move(buffer);
}

TEST(MappedSegmentTest, ShowsWhatTheOwnerWrites) {
  const auto buffer = Shared();
  const v1::SharedSegment announced = Announce(*buffer);
  EXPECT_EQ(announced.bytes(), kSize);
  auto mapped = MappedSegment::Open(announced);
  ASSERT_OK(mapped);
  EXPECT_TRUE((*mapped)->Is(announced));
  EXPECT_EQ((*mapped)->span()[kSize - 1], std::byte{0x5A});
  buffer->data()[0] = std::byte{1};
  EXPECT_EQ((*mapped)->span()[0], std::byte{1});
}

TEST(MappedSegmentTest, OutlivesItsOwner) {
  auto buffer = Shared();
  auto mapped = MappedSegment::Open(Announce(*buffer));
  ASSERT_OK(mapped);
  buffer.reset();
  EXPECT_EQ((*mapped)->span()[7], std::byte{0x5A});
}

TEST(MappedSegmentTest, PrivateMemoryIsNotAnnounced) {
  auto buffer = Buffer::Allocate(kSize);
  ASSERT_OK(buffer);
  EXPECT_EQ(Announce(**buffer).bytes(), 0U);
  auto small = Buffer::Allocate(100, Backing::kShared);
  ASSERT_OK(small);
  EXPECT_EQ(Announce(**small).bytes(), 0U);
}

TEST(MappedSegmentTest, RefusesWhatWasNotAnnounced) {
  const auto buffer = Shared();
  const v1::SharedSegment good = Announce(*buffer);
  const auto expect_refused = [&](auto change, const char* why) {
    v1::SharedSegment bad = good;
    change(bad);
    EXPECT_THAT(MappedSegment::Open(bad), StatusIs(absl::StatusCode::kUnavailable, HasSubstr(why)));
  };
  expect_refused([](auto& s) { s.set_inode(s.inode() + 1); }, "another file");
  expect_refused([](auto& s) { s.set_device(s.device() + 1); }, "another file");
  expect_refused([](auto& s) { s.set_bytes(kSize + 1); }, "were announced");
  expect_refused([](auto& s) { s.set_bytes(0); }, "were announced");
  expect_refused([](auto& s) { s.set_fd(-1); }, "No such file");
  expect_refused([](auto& s) { s.set_pid(-1); }, "No such file");
}

TEST(MappedSegmentTest, RefusesMemoryThatMayShrink) {
  const int fd = memfd_create("unsealed", MFD_CLOEXEC);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(ftruncate(fd, 4096), 0);
  struct stat file = {};
  ASSERT_EQ(fstat(fd, &file), 0);
  v1::SharedSegment announced;
  announced.set_pid(getpid());
  announced.set_fd(fd);
  announced.set_device(file.st_dev);
  announced.set_inode(file.st_ino);
  announced.set_bytes(4096);
  EXPECT_THAT(MappedSegment::Open(announced), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("not sealed")));
  close(fd);
}

// Runs in a process of its own, as a user who owns nothing.
int AsNobody(const std::function<int()>& work) {
  constexpr uid_t kNobody = 65534;
  const pid_t child = fork();
  if (child == 0) {
    if (setgroups(0, nullptr) != 0 || setgid(kNobody) != 0 || setuid(kNobody) != 0) _exit(100);
    _exit(work());
  }
  int ended = 0;
  EXPECT_EQ(waitpid(child, &ended, 0), child);
  return WIFEXITED(ended) ? WEXITSTATUS(ended) : 128 + WTERMSIG(ended);
}

TEST(MappedSegmentTest, AnotherUserCannotReadIt) {
  if (geteuid() != 0) GTEST_SKIP() << "not root, so it cannot become another user";
  const auto buffer = Shared();
  const v1::SharedSegment announced = Announce(*buffer);
  const std::string path = "/proc/" + std::to_string(announced.pid()) + "/fd/" + std::to_string(announced.fd());
  const int outcome = AsNobody([&] {
    if (open(path.c_str(), O_RDONLY) >= 0) return 1;
    if (errno != EACCES && errno != EPERM) return 2;
    return MappedSegment::Open(announced).ok() ? 3 : 0;
  });
  EXPECT_EQ(outcome, 0) << "1: opened by hand, 2: failed for another reason, 3: mapped, 100: could not become nobody";
}

TEST(MappedSegmentTest, AnotherUsersIsNotTaken) {
  if (geteuid() != 0) GTEST_SKIP() << "not root, so there is no memory of another user to open";
  const auto buffer = Shared();
  ASSERT_EQ(fchown(buffer->shared_fd(), 65534, 65534), 0);
  // Root could read it: it is refused all the same.
  EXPECT_THAT(MappedSegment::Open(Announce(*buffer)),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("belongs to user 65534")));
}

TEST(MappedSegmentTest, IsClosedToOthersByItsOwnModeToo) {
  const auto buffer = Shared();
  struct stat file = {};
  ASSERT_EQ(fstat(buffer->shared_fd(), &file), 0);
  EXPECT_EQ(file.st_mode & (S_IRWXG | S_IRWXO), 0U);
}

}  // namespace
}  // namespace refit

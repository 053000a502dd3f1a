#include "common/net/shared_segment.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

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

TEST(IsLocalTest, KnowsThisHost) {
  for (const char* local : {"127.0.0.1:1", "ipv4:127.0.0.1:44", "localhost:1", "[::1]:5", "ipv6:[::1]:5",
                            "ipv6:%5B::1%5D:5", "unix:/tmp/x", "unix:"}) {
    EXPECT_TRUE(IsLocal(local)) << local;
  }
  for (const char* remote : {"10.0.0.1:1", "ipv4:192.168.1.1:127", "example.org:1", "ipv6:[fe80::1]:5", ""}) {
    EXPECT_FALSE(IsLocal(remote)) << remote;
  }
}

}  // namespace
}  // namespace refit

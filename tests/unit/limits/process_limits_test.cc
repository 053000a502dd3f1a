// With limits that are real, and buffers, which are to keep to them.
#include "common/limits/process_limits.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "common/tensor/buffer_pool.h"
#include "refit/buffer.h"
#include "tests/support/low_limit.h"
#include "tests/support/sanitized.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr size_t kSize = 2 << 20;

TEST(ProcessLimits, MemoryLeavesHalfOfTheDescriptors) {
  const LowLimit low(RLIMIT_NOFILE, 200);
  std::vector<std::string> told;
  BufferPool pool(1 << 30, BufferPool::Fit::kExact, nullptr, Backing::kShared,
                  [&](const absl::Status& why) { told.emplace_back(why.message()); });
  std::vector<std::shared_ptr<Buffer>> buffers;
  int shared = 0;
  for (int i = 0; i < 150; ++i) {
    buffers.push_back(*pool.Get(kSize));
    shared += buffers.back()->shared_fd() >= 0 ? 1 : 0;
    EXPECT_LT(buffers.back()->shared_fd(), 100);
  }
  EXPECT_GT(shared, 10);
  EXPECT_LT(shared, 100);
  ASSERT_EQ(told.size(), 1U);  // however often it happens
  EXPECT_THAT(told[0],
              AllOf(HasSubstr("of at most 200 descriptors"), HasSubstr("ulimit -n"), HasSubstr("LimitNOFILE")));
  const int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_GE(file, 0);
  close(file);
}

TEST(ProcessLimits, IdleMemoryKeepsNoDescriptorsFromWhoNeedsThem) {
  const LowLimit low(RLIMIT_NOFILE, 200);
  BufferPool pool(1 << 30, BufferPool::Fit::kExact, nullptr, Backing::kShared);
  for (size_t i = 1; i <= 150; ++i) ASSERT_GE((*pool.Get(i * kSize))->shared_fd(), 0) << i;
}

TEST(ProcessLimits, WithoutAnyDescriptorMemoryIsPrivate) {
  std::vector<int> files;
  {
    const LowLimit low(RLIMIT_NOFILE, 64);
    for (int file = 0; (file = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) files.push_back(file);
    EXPECT_THAT(WhyNotOpened(EMFILE), AllOf(HasSubstr("all 64 descriptors"), HasSubstr("ulimit -n")));
    const auto buffer = Buffer::Allocate(kSize, Backing::kShared);
    ASSERT_OK(buffer);
    EXPECT_LT((*buffer)->shared_fd(), 0);
  }
  for (const int file : files) close(file);
}

// A larger file would be the process's end.
TEST(ProcessLimits, WhereFilesAreLimitedMemoryIsPrivate) {
  const LowLimit low(RLIMIT_FSIZE, 8 << 20);
  std::vector<std::string> told;
  BufferPool pool(1 << 30, BufferPool::Fit::kExact, nullptr, Backing::kShared,
                  [&](const absl::Status& why) { told.emplace_back(why.message()); });
  const auto large = pool.Get(16 << 20);
  ASSERT_OK(large);
  EXPECT_LT((*large)->shared_fd(), 0);
  EXPECT_GE((*pool.Get(4 << 20))->shared_fd(), 0);
  ASSERT_EQ(told.size(), 1U);
  EXPECT_THAT(told[0], AllOf(HasSubstr("16777216 bytes"), HasSubstr("limited to 8388608"), HasSubstr("ulimit -f")));
}

TEST(ProcessLimits, MemoryLeavesSomeOfTheAddresses) {
  if (kSanitized) GTEST_SKIP() << "sanitizers need all addresses";
  const LowLimit low(RLIMIT_AS, 1 << 30);
  BufferPool pool(1 << 30);
  std::vector<std::shared_ptr<Buffer>> buffers;
  absl::Status status;
  while (status.ok()) {
    absl::StatusOr<std::shared_ptr<Buffer>> buffer = pool.Get(16 * kSize);
    status = buffer.status();
    if (buffer.ok()) buffers.push_back(*std::move(buffer));
  }
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                               AllOf(HasSubstr("1073741824 bytes (ulimit -v)"), HasSubstr("are in use"))));
  EXPECT_GT(buffers.size(), 4U);
  EXPECT_EQ(pool.used_bytes(), buffers.size() * 16 * kSize);
  EXPECT_NE(std::make_unique<std::vector<char>>(64 << 20), nullptr);  // what others need is there
  buffers.clear();
  EXPECT_OK(pool.Get(16 * kSize));
}

TEST(ProcessLimits, WithoutMappingsMemoryComesFromTheHeapOrTheLimitIsNamed) {
  if (kSanitized) GTEST_SKIP() << "sanitizers need mappings of their own";
  const NoMappings none;
  if (!none.is_exhausted()) GTEST_SKIP() << "vm.max_map_count is larger than what this test takes";
  EXPECT_THAT(WhyNotMapped(kSize, ENOMEM),
              AllOf(HasSubstr("mappings, and vm.max_map_count allows"), HasSubstr("sysctl -w vm.max_map_count=")));
  for (const Backing backing : {Backing::kPrivate, Backing::kShared}) {
    const auto buffer = Buffer::Allocate(4 * kSize, backing);
    if (buffer.ok()) {
      EXPECT_LT((*buffer)->shared_fd(), 0);
      (*buffer)->data()[4 * kSize - 1] = std::byte{1};
    } else {
      EXPECT_THAT(buffer, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("vm.max_map_count")));
    }
  }
}

}  // namespace
}  // namespace refit

#include "refit/memory_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace refit {
namespace {

using ::testing::HasSubstr;

// A mapping of its own.
class Mapping {
 public:
  Mapping(size_t size, int protection, int flags, int fd = -1)
      : bytes_(static_cast<std::byte*>(mmap(nullptr, size, protection, flags, fd, 0)), size) {}
  ~Mapping() { munmap(bytes_.data(), bytes_.size()); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  absl::Span<std::byte> bytes() const { return bytes_; }

 private:
  const absl::Span<std::byte> bytes_;
};

constexpr size_t kSize = 1 << 20;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;

size_t Page() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

class MemoryProbeTest : public ::testing::Test {
 protected:
  std::string WhyNotReadable(absl::Span<const std::byte> bytes) {
    return std::string(MemoryProbe().CheckReadable(bytes).message());
  }

  const std::unique_ptr<FILE, int (*)(FILE*)> file_{tmpfile(), &fclose};
  const int fd_ = fileno(file_.get());
};

TEST_F(MemoryProbeTest, OrdinaryMemoryIsFine) {
  const std::vector<std::byte> heap(kSize);
  MemoryProbe probe;
  for (size_t begin = 0; begin + 1000 < kSize; begin += 1000) {
    EXPECT_TRUE(probe.CheckReadable({heap.data() + begin, 1000}).ok());
  }
  EXPECT_TRUE(probe.CheckReadable(heap).ok());
  EXPECT_TRUE(probe.CheckWritable(heap).ok());
}

TEST_F(MemoryProbeTest, UntouchedMemoryIsFine) {
  const Mapping fresh(kSize, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS);
  EXPECT_TRUE(MemoryProbe().CheckReadable(fresh.bytes()).ok());
  EXPECT_TRUE(MemoryProbe().CheckWritable(fresh.bytes()).ok());
}

TEST_F(MemoryProbeTest, NothingIsFineAnywhere) {
  EXPECT_TRUE(MemoryProbe().CheckReadable({}).ok());
  EXPECT_TRUE(MemoryProbe().CheckWritable({}).ok());
}

TEST_F(MemoryProbeTest, ANullAddressHasNoBytes) {
  EXPECT_THAT(WhyNotReadable({static_cast<const std::byte*>(nullptr), 8}), HasSubstr("null"));
}

TEST_F(MemoryProbeTest, FindsAFileThatWasCutWithinABlockOfThePageCache) {
  const std::vector<std::byte> content(kSize);
  ASSERT_EQ(fwrite(content.data(), 1, kSize, file_.get()), kSize);
  ASSERT_EQ(fflush(file_.get()), 0);
  const Mapping mapping(kSize, PROT_READ, MAP_SHARED, fd_);
  ASSERT_EQ(ftruncate(fd_, static_cast<off_t>(Page())), 0);
  EXPECT_THAT(WhyNotReadable(mapping.bytes()), HasSubstr("truncated"));
  EXPECT_THAT(WhyNotReadable(mapping.bytes().first(4 * Page())), HasSubstr("truncated"));
  EXPECT_TRUE(MemoryProbe().CheckReadable(mapping.bytes().first(Page())).ok());
}

TEST_F(MemoryProbeTest, FindsWhatIsNotMapped) {
  absl::Span<const std::byte> gone;
  {
    const Mapping mapping(kSize, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS);
    gone = mapping.bytes();
  }
  EXPECT_THAT(WhyNotReadable(gone), HasSubstr("nothing is mapped"));
  EXPECT_THAT(WhyNotReadable(gone.subspan(Page() + 3, 5)), HasSubstr("nothing is mapped"));
}

TEST_F(MemoryProbeTest, FindsAHoleBehindWhatIsThere) {
  const Mapping mapping(kSize, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS);
  for (std::byte& byte : mapping.bytes()) byte = std::byte{1};
  ASSERT_EQ(munmap(mapping.bytes().data() + 2 * Page(), Page()), 0);
  MemoryProbe probe;
  EXPECT_TRUE(probe.CheckReadable(mapping.bytes().subspan(0, 2 * Page())).ok());
  EXPECT_FALSE(probe.CheckReadable(mapping.bytes().subspan(0, 2 * Page() + 1)).ok());
  EXPECT_TRUE(probe.CheckReadable(mapping.bytes().subspan(3 * Page())).ok());
}

TEST_F(MemoryProbeTest, FindsProtectedMemory) {
  const Mapping mapping(kSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
  EXPECT_THAT(WhyNotReadable(mapping.bytes()), HasSubstr("protected"));
}

TEST_F(MemoryProbeTest, FindsWhatIsBeyondTheEndOfItsFile) {
  for (const int flags : {MAP_SHARED, MAP_PRIVATE}) {
    ASSERT_EQ(ftruncate(fd_, kSize), 0);
    const Mapping mapping(kSize, PROT_READ, flags, fd_);
    EXPECT_TRUE(MemoryProbe().CheckReadable(mapping.bytes()).ok());
    ASSERT_EQ(ftruncate(fd_, static_cast<off_t>(Page() + 1)), 0);
    EXPECT_TRUE(MemoryProbe().CheckReadable(mapping.bytes().subspan(0, 2 * Page())).ok());
    EXPECT_THAT(WhyNotReadable(mapping.bytes()), HasSubstr("truncated"));
    EXPECT_THAT(WhyNotReadable(mapping.bytes().subspan(3 * Page(), 10)), HasSubstr("truncated"));
    EXPECT_THAT(WhyNotReadable(mapping.bytes().last(1)), HasSubstr("truncated"));
  }
}

TEST_F(MemoryProbeTest, FindsReadOnlyMappings) {
  ASSERT_EQ(ftruncate(fd_, kSize), 0);
  const Mapping mapping(kSize, PROT_READ, MAP_SHARED, fd_);
  EXPECT_TRUE(MemoryProbe().CheckReadable(mapping.bytes()).ok());
  EXPECT_THAT(std::string(MemoryProbe().CheckWritable(mapping.bytes()).message()), HasSubstr("read-only"));
}

TEST_F(MemoryProbeTest, WritingIsOnlyLookedAt) {
  std::vector<std::byte> heap(3 * Page(), std::byte{7});
  EXPECT_TRUE(MemoryProbe().CheckWritable(absl::MakeSpan(heap)).ok());
  EXPECT_THAT(heap, ::testing::Each(std::byte{7}));
}

}  // namespace
}  // namespace refit

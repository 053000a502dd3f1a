#include "common/net/heap_anchor.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/resource.h>

#include <cstring>
#include <thread>
#include <vector>

#include "tests/support/sanitized.h"

namespace refit {
namespace {

// As gRPC receives: a message of 2 MiB in blocks of 64 KiB.
constexpr size_t kBlock = 64 << 10;
constexpr size_t kBlocks = 32;
constexpr int kMessages = 50;
constexpr int64_t kPagesOfAMessage = static_cast<int64_t>(kBlock * kBlocks / 4096);

grpc::ByteBuffer Receive() {
  std::vector<grpc::Slice> blocks;
  for (size_t i = 0; i < kBlocks; ++i) {
    blocks.emplace_back(kBlock);
    std::memset(const_cast<uint8_t*>(blocks.back().begin()), 1, kBlock);
  }
  return grpc::ByteBuffer(blocks.data(), blocks.size());
}

// Leaves a hole in the heap for what a message needs besides its blocks. Otherwise that might lie above the blocks of a
// message, by chance, and keep them from being given back. Returns what keeps the hole from closing.
grpc::Slice MakeHoleForSmallThings() {
  const grpc::Slice hole(kBlock / 2);
  return grpc::Slice(100);
}

int64_t PageFaults() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt;
}

// Page faults of messages that are received one after another, by a thread with a heap of its own or by this one. The
// next one arrives while the last one is in use.
template <typename Seen>
int64_t FaultsOfMessages(bool in_a_thread, Seen seen) {
  int64_t faults = 0;
  const auto receive = [&] {
    const grpc::Slice fence = MakeHoleForSmallThings();
    const int64_t before = PageFaults();
    grpc::ByteBuffer last;
    for (int i = 0; i < kMessages; ++i) {
      grpc::ByteBuffer next = Receive();
      seen(next);
      last.Swap(&next);
    }
    faults = PageFaults() - before;
  };
  if (in_a_thread) {
    std::thread(receive).join();
  } else {
    receive();
  }
  return faults;
}

class HeapAnchorTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "a sanitizer has its own allocator";
  }
};
INSTANTIATE_TEST_SUITE_P(MainHeapAndThreads, HeapAnchorTest, testing::Bool());

TEST_P(HeapAnchorTest, PagesAreFaultedInOnce) {
  const int64_t without = FaultsOfMessages(GetParam(), [](const grpc::ByteBuffer&) {});
  EXPECT_GT(without, kMessages * kPagesOfAMessage / 4) << "this allocator needs no anchor";
  HeapAnchor anchor;
  const int64_t with = FaultsOfMessages(GetParam(), [&](const grpc::ByteBuffer& message) { anchor.Hold(message); });
  EXPECT_LT(with, 3 * kPagesOfAMessage);
}

TEST_P(HeapAnchorTest, AfterwardsEverythingIsGivenBack) {
  const auto heap_bytes = [] { return mallinfo2().arena; };
  const size_t before = heap_bytes();
  {
    HeapAnchor anchor;
    FaultsOfMessages(GetParam(), [&](const grpc::ByteBuffer& message) { anchor.Hold(message); });
    EXPECT_GE(heap_bytes(), before + kBlock);
  }
  EXPECT_LT(heap_bytes(), before + 4 * kBlock);
}

TEST(HeapAnchorOfNoMessageTest, HoldsNothingOfShortAndInvalidMessages) {
  HeapAnchor anchor;
  anchor.Hold(grpc::ByteBuffer());
  bool released = false;
  {
    static char bytes[4096];
    const grpc::Slice slice(
        bytes, sizeof(bytes), [](void* flag) { *static_cast<bool*>(flag) = true; }, &released);
    anchor.Hold(grpc::ByteBuffer(&slice, 1));
  }
  EXPECT_TRUE(released);
}

}  // namespace
}  // namespace refit

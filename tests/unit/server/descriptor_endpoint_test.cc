#include "server/descriptors/descriptor_endpoint.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/net/descriptor_client.h"
#include "common/net/descriptor_messages.h"
#include "common/net/shared_segment.h"
#include "common/net/unix_socket.h"
#include "tests/support/eventually.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr size_t kSize = 2 << 20;

std::shared_ptr<Buffer> Shared() {
  auto buffer = Buffer::Allocate(kSize, Backing::kShared);
  EXPECT_OK(buffer);
  std::memset((*buffer)->data(), 0x5A, kSize);
  return *std::move(buffer);
}

size_t OpenDescriptors() {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

class DescriptorEndpointTest : public ::testing::Test {
 protected:
  // A main socket too, as the service has: its owner is the service's.
  DescriptorEndpointTest() : main_(*PacketListener::Open(path_, std::nullopt)) {
    auto started = DescriptorEndpoint::Start(path_, std::nullopt, table_);
    EXPECT_OK(started);
    endpoint_ = *std::move(started);
  }

  FileDescriptor Connect() {
    auto peer = ConnectPackets(DescriptorPath(path_), std::chrono::steady_clock::now() + std::chrono::seconds(10));
    EXPECT_OK(peer);
    return *std::move(peer);
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_.Path("socket");
  const DescriptorClient client_{absl::StrCat("unix:", path_)};
  PacketListener main_;
  DescriptorTable table_{true};
  std::unique_ptr<DescriptorEndpoint> endpoint_;
};

TEST_F(DescriptorEndpointTest, GivesWhatIsLentAsLongAsItIs) {
  const auto buffer = Shared();
  v1::SharedSegment announced = Announce(*buffer);
  std::string key;
  {
    const DescriptorTable::Loan loan = table_.Lend(buffer);
    key = loan.key();
    ASSERT_EQ(key.size(), kDescriptorKeyBytes);
    auto file = client_.Take(key);
    ASSERT_OK(file);
    auto mapped = MappedSegment::OfDescriptor(*file, announced);
    ASSERT_OK(mapped);
    buffer->data()[kSize - 1] = std::byte{1};
    EXPECT_EQ((*mapped)->span()[0], std::byte{0x5A});
    EXPECT_EQ((*mapped)->span()[kSize - 1], std::byte{1});
  }
  EXPECT_EQ(table_.lent(), 0U);
  EXPECT_THAT(client_.Take(key), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("knows no such key")));
}

TEST_F(DescriptorEndpointTest, GivesNothingToWhoGuesses) {
  const DescriptorTable::Loan loan = table_.Lend(Shared());
  std::string near = loan.key();
  near.back() ^= 1;
  for (const std::string& key : {near, NewDescriptorKey(), std::string(kDescriptorKeyBytes, '\0')}) {
    EXPECT_THAT(client_.Take(key), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("knows no such key")));
  }
}

// Not by the descriptor, and not by another one that it leads to, though this process may do all that the owner may.
TEST_F(DescriptorEndpointTest, WhatItGivesCannotBeWrittenTo) {
  const auto buffer = Shared();
  const DescriptorTable::Loan loan = table_.Lend(buffer);
  auto given = client_.Take(loan.key());
  ASSERT_OK(given);
  EXPECT_EQ(fcntl(given->get(), F_GETFL) & O_ACCMODE, O_RDONLY);
  const FileDescriptor again(open(absl::StrCat("/proc/self/fd/", given->get()).c_str(), O_RDWR | O_CLOEXEC));
  for (const int fd : {given->get(), again.get()}) {
    if (fd < 0) continue;
    EXPECT_LT(pwrite(fd, "x", 1, 0), 0);
    EXPECT_EQ(mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    EXPECT_NE(ftruncate(fd, 0), 0);
    EXPECT_NE(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
    void* const read_only = mmap(nullptr, kSize, PROT_READ, MAP_SHARED, fd, 0);
    ASSERT_NE(read_only, MAP_FAILED);
    EXPECT_NE(mprotect(read_only, kSize, PROT_READ | PROT_WRITE), 0);
    munmap(read_only, kSize);
  }
  EXPECT_EQ(buffer->data()[0], std::byte{0x5A});
  buffer->data()[0] = std::byte{2};  // its owner writes as ever
}

TEST_F(DescriptorEndpointTest, KeepsWhatIsOfferedUntilItIsClaimed) {
  const auto ring = Shared();
  const std::string key = NewDescriptorKey();
  auto offer = client_.Offer(key, ring->shared_fd());
  ASSERT_OK(offer);
  const FileDescriptor claimed = table_.Claim(key);
  ASSERT_TRUE(claimed.valid());
  EXPECT_OK(MappedSegment::OfDescriptor(claimed, Announce(*ring)));
  EXPECT_FALSE(table_.Claim(key).valid()) << "it was claimed already";
}

TEST_F(DescriptorEndpointTest, AnOfferEndsWithItsConnection) {
  const auto ring = Shared();
  const std::string key = NewDescriptorKey();
  auto offer = client_.Offer(key, ring->shared_fd());
  ASSERT_OK(offer);
  EXPECT_EQ(table_.offered(), 1U);
  EXPECT_THAT(client_.Offer(key, ring->shared_fd()), StatusIs(absl::StatusCode::kUnavailable)) << "its key is taken";
  EXPECT_EQ(table_.offered(), 1U);
  *offer = FileDescriptor();
  EXPECT_TRUE(Eventually([&] { return table_.offered() == 0; }));
}

TEST_F(DescriptorEndpointTest, AnOfferWithoutADescriptorIsNone) {
  EXPECT_THAT(client_.Offer(NewDescriptorKey(), -1), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(table_.offered(), 0U);
}

TEST_F(DescriptorEndpointTest, WhoSaysNonsenseIsHungUpOn) {
  const DescriptorTable::Loan loan = table_.Lend(Shared());
  const std::string request = Encode({DescriptorRequest::Kind::kTake, loan.key()});
  for (const std::string& message : {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(1, 'T'), request + "x",
                                     request.substr(0, 16), "X" + request.substr(1), std::string(4000, 'T')}) {
    const FileDescriptor peer = Connect();
    ASSERT_OK(SendDescriptorMessage(peer, message));
    auto answer = ReceiveDescriptorMessage(peer);
    EXPECT_TRUE(!answer.ok() || answer->bytes.empty()) << message;
  }
  EXPECT_OK(client_.Take(loan.key()));
}

TEST_F(DescriptorEndpointTest, WhoSaysNothingKeepsNobodyOut) {
  const DescriptorTable::Loan loan = table_.Lend(Shared());
  constexpr int kMany = 600;
  std::vector<FileDescriptor> silent;
  silent.reserve(kMany);
  for (int i = 0; i < kMany; ++i) silent.push_back(Connect());
  EXPECT_OK(client_.Take(loan.key()));
  // The oldest were dropped.
  EXPECT_EQ(ReceiveDescriptorMessage(silent[0])->bytes, "");
}

TEST_F(DescriptorEndpointTest, NoDescriptorIsLost) {
  const auto buffer = Shared();
  const DescriptorTable::Loan loan = table_.Lend(buffer);
  const size_t before = OpenDescriptors();
  for (int i = 0; i < 500; ++i) {
    ASSERT_OK(client_.Take(loan.key()));
    ASSERT_OK(client_.Offer(NewDescriptorKey(), buffer->shared_fd()));
    const FileDescriptor stranger = Connect();
    ASSERT_OK(SendDescriptorMessage(stranger, "nonsense", buffer->shared_fd()));
  }
  EXPECT_TRUE(Eventually([&] { return OpenDescriptors() == before; })) << OpenDescriptors() << " after " << before;
}

TEST_F(DescriptorEndpointTest, NobodyElseMayServeInItsName) {
  const auto ring = Shared();
  if (geteuid() != 0) GTEST_SKIP() << "not root, so there is no socket of another user";
  ASSERT_EQ(chown(path_.c_str(), 65534, 65534), 0);  // the service is another user's than who passes descriptors
  EXPECT_THAT(client_.Offer(NewDescriptorKey(), ring->shared_fd()),
              StatusIs(absl::StatusCode::kUnavailable, AllOf(HasSubstr("user 0"), HasSubstr("user 65534"))));
  EXPECT_EQ(table_.offered(), 0U);
}

TEST_F(DescriptorEndpointTest, LeavesNothingBehind) {
  auto offer = client_.Offer(NewDescriptorKey(), Shared()->shared_fd());
  ASSERT_OK(offer);
  endpoint_.reset();
  EXPECT_EQ(table_.offered(), 0U);
  EXPECT_THAT(folder_.Names(), ::testing::ElementsAre("socket"));
  EXPECT_THAT(client_.Take(NewDescriptorKey()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(DescriptorPath(path_))));
}

TEST(DescriptorTableTest, LendsNothingWithoutASocket) {
  DescriptorTable table(false);
  EXPECT_THAT(table.Lend(Shared()).key(), IsEmpty());
  EXPECT_EQ(table.lent(), 0U);
}

TEST(DescriptorTableTest, PrivateMemoryIsNotLent) {
  DescriptorTable table(true);
  auto buffer = Buffer::Allocate(kSize);
  ASSERT_OK(buffer);
  EXPECT_THAT(table.Lend(*buffer).key(), IsEmpty());
}

}  // namespace
}  // namespace refit

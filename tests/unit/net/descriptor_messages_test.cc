#include "common/net/descriptor_messages.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/low_limit.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::HasSubstr;

struct Pair {
  Pair() {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0) abort();
    sender = FileDescriptor(fds[0]);
    receiver = FileDescriptor(fds[1]);
  }
  FileDescriptor sender;
  FileDescriptor receiver;
};

// The descriptor that would be opened next: none below it is free.
int NextDescriptor() {
  const FileDescriptor next(open("/dev/null", O_RDONLY | O_CLOEXEC));
  return next.get();
}

void SendSeveral(const FileDescriptor& socket, size_t count) {
  const FileDescriptor file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  std::vector<char> rights(CMSG_SPACE(count * sizeof(int)));
  char byte = 'T';
  iovec content = {&byte, 1};
  msghdr message = {};
  message.msg_iov = &content;
  message.msg_iovlen = 1;
  message.msg_control = rights.data();
  message.msg_controllen = rights.size();
  cmsghdr* part = CMSG_FIRSTHDR(&message);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(count * sizeof(int));
  const int fd = file.get();
  for (size_t i = 0; i < count; ++i) std::memcpy(CMSG_DATA(part) + i * sizeof(int), &fd, sizeof(fd));
  ASSERT_EQ(sendmsg(socket.get(), &message, MSG_NOSIGNAL), 1);
}

TEST(DescriptorKeyTest, EachIsAnother) {
  const std::string key = NewDescriptorKey();
  EXPECT_EQ(key.size(), kDescriptorKeyBytes);
  EXPECT_NE(key, NewDescriptorKey());
}

TEST(DescriptorRequestTest, IsDecodedAsItWasEncoded) {
  for (const auto kind : {DescriptorRequest::Kind::kTake, DescriptorRequest::Kind::kOffer}) {
    const DescriptorRequest request = {kind, NewDescriptorKey()};
    const auto decoded = DecodeDescriptorRequest(Encode(request));
    ASSERT_TRUE(decoded.has_value());
    EXPECT_EQ(decoded->kind, kind);
    EXPECT_EQ(decoded->key, request.key);
  }
}

TEST(DescriptorRequestTest, AnythingElseIsNone) {
  const std::string key(kDescriptorKeyBytes, 'k');
  for (const std::string& message :
       {std::string(), std::string("T"), "X" + key, "T" + key + "k", key, std::string(17, '\0')}) {
    EXPECT_FALSE(DecodeDescriptorRequest(message).has_value()) << message;
  }
}

TEST(DescriptorMessageTest, CarriesOneDescriptor) {
  const Pair pair;
  const FileDescriptor file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_OK(SendDescriptorMessage(pair.sender, "0", file.get()));
  auto received = ReceiveDescriptorMessage(pair.receiver);
  ASSERT_OK(received);
  EXPECT_EQ(received->bytes, "0");
  ASSERT_TRUE(received->descriptor.valid());
  struct stat sent = {};
  struct stat got = {};
  ASSERT_EQ(fstat(file.get(), &sent), 0);
  ASSERT_EQ(fstat(received->descriptor.get(), &got), 0);
  EXPECT_EQ(sent.st_ino, got.st_ino);
  EXPECT_NE(fcntl(received->descriptor.get(), F_GETFD) & FD_CLOEXEC, 0) << "a program that is started would keep it";
}

TEST(DescriptorMessageTest, ThereIsNoneYetOrNoMore) {
  Pair pair;
  EXPECT_THAT(ReceiveDescriptorMessage(pair.receiver), StatusIs(absl::StatusCode::kUnavailable));
  ASSERT_OK(SendDescriptorMessage(pair.sender, "last"));
  pair.sender = FileDescriptor();
  EXPECT_EQ(ReceiveDescriptorMessage(pair.receiver)->bytes, "last");
  EXPECT_EQ(ReceiveDescriptorMessage(pair.receiver)->bytes, "");
  EXPECT_THAT(SendDescriptorMessage(pair.receiver, "0"), StatusIs(absl::StatusCode::kUnavailable)) << "and no SIGPIPE";
}

TEST(DescriptorMessageTest, NoneOfSeveralDescriptorsStaysOpen) {
  const Pair pair;
  const int next = NextDescriptor();
  for (const size_t count : {2, 3, 100, 253}) {
    SendSeveral(pair.sender, count);
    EXPECT_THAT(ReceiveDescriptorMessage(pair.receiver),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("several descriptors")));
    EXPECT_EQ(NextDescriptor(), next) << count;
  }
}

TEST(DescriptorMessageTest, OneThatIsTooLongIsRefusedWithItsDescriptor) {
  const Pair pair;
  const FileDescriptor file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int next = NextDescriptor();
  ASSERT_OK(SendDescriptorMessage(pair.sender, std::string(1000, 'T'), file.get()));
  EXPECT_THAT(ReceiveDescriptorMessage(pair.receiver),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("too long")));
  EXPECT_EQ(NextDescriptor(), next);
}

// The kernel then gives the message without its descriptor.
TEST(DescriptorMessageTest, WithoutRoomForADescriptorTheLimitIsNamed) {
  const Pair pair;
  const FileDescriptor file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_OK(SendDescriptorMessage(pair.sender, "0", file.get()));
  const LowLimit none(RLIMIT_NOFILE, static_cast<rlim_t>(NextDescriptor()));
  EXPECT_THAT(ReceiveDescriptorMessage(pair.receiver),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("ulimit -n")));
}

}  // namespace
}  // namespace refit

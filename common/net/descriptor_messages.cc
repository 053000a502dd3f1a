#include "common/net/descriptor_messages.h"

#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/limits/process_limits.h"

namespace refit {
namespace {

// One byte more than the longest message, so that a longer one is noticed.
constexpr size_t kMostBytes = 1 + kDescriptorKeyBytes;

// All descriptors that came with a message. The peer decides how many those are.
std::vector<FileDescriptor> Received(msghdr& message) {
  std::vector<FileDescriptor> descriptors;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
      descriptors.emplace_back(fd);
    }
  }
  return descriptors;
}

}  // namespace

std::string NewDescriptorKey() {
  std::string key(kDescriptorKeyBytes, '\0');
  const ssize_t got = getrandom(key.data(), key.size(), GRND_NONBLOCK);
  return got == static_cast<ssize_t>(key.size()) ? key : "";
}

std::string Encode(const DescriptorRequest& request) {
  return absl::StrCat(std::string(1, static_cast<char>(request.kind)), request.key);
}

std::optional<DescriptorRequest> DecodeDescriptorRequest(absl::string_view message) {
  if (message.size() != 1 + kDescriptorKeyBytes) return std::nullopt;
  const auto kind = static_cast<DescriptorRequest::Kind>(message[0]);
  if (kind != DescriptorRequest::Kind::kTake && kind != DescriptorRequest::Kind::kOffer) return std::nullopt;
  return DescriptorRequest{kind, std::string(message.substr(1))};
}

absl::Status SendDescriptorMessage(const FileDescriptor& socket, absl::string_view bytes, int fd) {
  iovec content = {const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message = {};
  message.msg_iov = &content;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> rights = {};
  if (fd >= 0) {
    message.msg_control = rights.data();
    message.msg_controllen = rights.size();
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(part), &fd, sizeof(fd));
  }
  ssize_t sent = -1;
  do {
    sent = sendmsg(socket.get(), &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent == static_cast<ssize_t>(bytes.size())) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot send a descriptor message: ", std::strerror(errno)));
}

absl::StatusOr<DescriptorMessage> ReceiveDescriptorMessage(const FileDescriptor& socket) {
  std::array<char, kMostBytes> bytes = {};
  iovec content = {bytes.data(), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> rights = {};
  msghdr message = {};
  message.msg_iov = &content;
  message.msg_iovlen = 1;
  message.msg_control = rights.data();
  message.msg_controllen = rights.size();
  const ssize_t got = recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC);
  if (got < 0) {
    const bool may_come = errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    return absl::Status(may_come ? absl::StatusCode::kUnavailable : absl::StatusCode::kAborted, std::strerror(errno));
  }
  std::vector<FileDescriptor> descriptors = Received(message);
  const bool lost = (message.msg_flags & MSG_CTRUNC) != 0;
  // The kernel drops what it cannot install, and says no more.
  if (lost && descriptors.empty()) return absl::ResourceExhaustedError(WhyNotOpened(EMFILE));
  if (lost || descriptors.size() > 1) return absl::InvalidArgumentError("a message with several descriptors");
  if ((message.msg_flags & MSG_TRUNC) != 0) return absl::InvalidArgumentError("a message that is too long");
  DescriptorMessage received;
  received.bytes.assign(bytes.data(), static_cast<size_t>(got));
  if (!descriptors.empty()) received.descriptor = std::move(descriptors.front());
  return received;
}

}  // namespace refit

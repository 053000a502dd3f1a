#include "common/net/descriptor_client.h"

#include <sys/socket.h>
#include <sys/stat.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/net/address.h"
#include "common/net/descriptor_messages.h"
#include "common/net/unix_socket.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{2};

// In a folder where all may write, somebody else could listen where the service does not.
absl::Status CheckIsTheServices(const FileDescriptor& peer, const std::string& path) {
  struct stat services = {};
  ucred listener = {};
  socklen_t size = sizeof(listener);
  if (stat(path.c_str(), &services) == 0 && getsockopt(peer.get(), SOL_SOCKET, SO_PEERCRED, &listener, &size) == 0 &&
      listener.uid == services.st_uid) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(
      absl::StrCat("it is served by user ", listener.uid, ", but ", path, " is of user ", services.st_uid));
}

// The deadline bounds the whole exchange, whatever signals come.
absl::StatusOr<DescriptorMessage> Await(const FileDescriptor& peer, Clock::time_point deadline) {
  while (SetDeadline(peer, deadline)) {
    absl::StatusOr<DescriptorMessage> message = ReceiveDescriptorMessage(peer);
    if (message.ok() || !absl::IsUnavailable(message.status())) return message;
  }
  return absl::UnavailableError("no answer");
}

absl::Status CheckAnswer(absl::string_view answer) {
  if (answer.size() != 1) return absl::UnavailableError("the service hung up");
  switch (static_cast<DescriptorAnswer>(answer[0])) {
    case DescriptorAnswer::kDone:
      return absl::OkStatus();
    case DescriptorAnswer::kUnknownKey:
      return absl::UnavailableError("the service knows no such key; the call that it belongs to may be over");
    default:
      return absl::UnavailableError("the service cannot");
  }
}

struct Exchange {
  FileDescriptor peer;
  FileDescriptor received;
};

absl::StatusOr<Exchange> Try(const std::string& path, const DescriptorRequest& request, int fd) {
  const Clock::time_point deadline = Clock::now() + kPatience;
  absl::StatusOr<FileDescriptor> peer = ConnectPackets(DescriptorPath(path), deadline);
  if (!peer.ok()) return peer.status();
  absl::Status status = CheckIsTheServices(*peer, path);
  if (status.ok()) status = SendDescriptorMessage(*peer, Encode(request), fd);
  if (!status.ok()) return status;
  absl::StatusOr<DescriptorMessage> answer = Await(*peer, deadline);
  if (!answer.ok()) return answer.status();
  status = CheckAnswer(answer->bytes);
  if (!status.ok()) return status;
  return Exchange{*std::move(peer), std::move(answer->descriptor)};
}

absl::StatusOr<Exchange> Ask(const std::string& path, const DescriptorRequest& request, int fd) {
  absl::StatusOr<Exchange> exchange = Try(path, request, fd);
  if (exchange.ok()) return exchange;
  const bool by_limit = absl::IsResourceExhausted(exchange.status());
  return absl::Status(by_limit ? exchange.status().code() : absl::StatusCode::kUnavailable,
                      absl::StrCat("descriptors at ", DescriptorPath(path), ": ", exchange.status().message()));
}

}  // namespace

std::string DescriptorPath(absl::string_view unix_path) { return absl::StrCat(unix_path, ".fds"); }

DescriptorClient::DescriptorClient(absl::string_view address) : path_(UnixPath(address)) {}

absl::StatusOr<FileDescriptor> DescriptorClient::Take(absl::string_view key) const {
  absl::StatusOr<Exchange> exchange = Ask(path_, {DescriptorRequest::Kind::kTake, std::string(key)}, -1);
  if (!exchange.ok()) return exchange.status();
  if (!exchange->received.valid()) return absl::UnavailableError("the service has answered without a descriptor");
  return std::move(exchange->received);
}

absl::StatusOr<FileDescriptor> DescriptorClient::Offer(absl::string_view key, int fd) const {
  absl::StatusOr<Exchange> exchange = Ask(path_, {DescriptorRequest::Kind::kOffer, std::string(key)}, fd);
  if (!exchange.ok()) return exchange.status();
  return std::move(exchange->peer);
}

}  // namespace refit

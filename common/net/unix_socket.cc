#include "common/net/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

absl::Status Failed(absl::string_view path, absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("socket ", path, ": ", why));
}

absl::StatusOr<sockaddr_un> NameOf(const std::string& path) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof(name.sun_path)) {
    return Failed(path, absl::StrCat("the path has ", path.size(), " bytes; the system takes ",
                                     sizeof(name.sun_path) - 1, " at most"));
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  return name;
}

// As connect or bind; the error, 0: none.
template <typename Call>
int ErrorOf(Call call, const FileDescriptor& socket, const sockaddr_un& name) {
  return call(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0 ? 0 : errno;
}

}  // namespace

absl::Status CheckPathIsFree(const std::string& path) {
  struct stat found = {};
  if (stat(path.c_str(), &found) != 0) {
    return errno == ENOENT ? absl::OkStatus() : Failed(path, std::strerror(errno));
  }
  if (!S_ISSOCK(found.st_mode)) return Failed(path, "something that is no socket is there; remove it, or take another");
  const absl::StatusOr<sockaddr_un> name = NameOf(path);
  if (!name.ok()) return name.status();
  const FileDescriptor probe(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!probe.valid()) return Failed(path, std::strerror(errno));
  const int error = ErrorOf(&connect, probe, *name);
  if (error == ECONNREFUSED || error == ENOENT) return absl::OkStatus();
  if (error == EACCES || error == EPERM) return Failed(path, "another user's socket is there; take another path");
  return Failed(path, "a running process listens there; end it, or take another path");
}

absl::Status SetSocketMode(const std::string& path, mode_t mode) {
  if (chmod(path.c_str(), mode) == 0) return absl::OkStatus();
  return Failed(path, absl::StrCat("its permissions cannot be set: ", std::strerror(errno)));
}

absl::StatusOr<PacketListener> PacketListener::Open(const std::string& path, std::optional<mode_t> mode) {
  const absl::StatusOr<sockaddr_un> name = NameOf(path);
  if (!name.ok()) return name.status();
  if (absl::Status status = CheckPathIsFree(path); !status.ok()) return status;
  FileDescriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return Failed(path, std::strerror(errno));
  (void)unlink(path.c_str());
  if (const int error = ErrorOf(&bind, socket, *name); error != 0) return Failed(path, std::strerror(error));
  PacketListener listener(path, std::move(socket));
  struct stat made = {};
  if (lstat(path.c_str(), &made) != 0) return Failed(path, std::strerror(errno));
  listener.device_ = made.st_dev;
  listener.inode_ = made.st_ino;
  if (mode.has_value()) {
    if (absl::Status status = SetSocketMode(path, *mode); !status.ok()) return status;
  }
  if (listen(listener.fd(), SOMAXCONN) != 0) return Failed(path, std::strerror(errno));
  return listener;
}

PacketListener::~PacketListener() {
  struct stat found = {};
  if (!socket_.valid() || lstat(path_.c_str(), &found) != 0) return;
  if (found.st_dev == device_ && found.st_ino == inode_) (void)unlink(path_.c_str());
}

bool SetDeadline(const FileDescriptor& socket, Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  if (left <= 0) return false;
  const timeval limit = {left / 1000, left % 1000 * 1000};
  return setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) == 0 &&
         setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0;
}

absl::StatusOr<FileDescriptor> ConnectPackets(const std::string& path, Clock::time_point deadline) {
  const absl::StatusOr<sockaddr_un> name = NameOf(path);
  if (!name.ok()) return name.status();
  FileDescriptor peer(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!peer.valid()) return Failed(path, std::strerror(errno));
  while (SetDeadline(peer, deadline)) {
    const int error = ErrorOf(&connect, peer, *name);
    if (error == 0) return peer;
    if (error == EAGAIN) break;
    if (error != EINTR) return absl::UnavailableError(std::strerror(error));
  }
  return absl::UnavailableError("nobody accepts connections");
}

}  // namespace refit

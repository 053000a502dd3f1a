// Unix sockets at a path.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/safetensors/posix_file.h"

namespace refit {

// OK if a service may listen at `path`: nothing is there, or a socket that a dead service has left behind. UNAVAILABLE
// if somebody listens there, if it is no socket, or if that cannot be told.
absl::Status CheckPathIsFree(const std::string& path);

// Sets the permissions of a socket that was just made. UNAVAILABLE with the reason.
absl::Status SetSocketMode(const std::string& path, mode_t mode);

// Listens at a path, for connections that keep the bounds of messages (SOCK_SEQPACKET) and do not block. The file is
// removed with it, unless another one is in its place.
class PacketListener {
 public:
  // Replaces a socket that a dead service has left behind. `mode`: the file's permissions; nullopt: what the umask
  // leaves. Errors as CheckPathIsFree.
  static absl::StatusOr<PacketListener> Open(const std::string& path, std::optional<mode_t> mode);
  PacketListener(PacketListener&& other) noexcept = default;
  PacketListener& operator=(PacketListener&&) = delete;
  ~PacketListener();

  int fd() const { return socket_.get(); }

 private:
  PacketListener(std::string path, FileDescriptor socket) : path_(std::move(path)), socket_(std::move(socket)) {}

  std::string path_;
  FileDescriptor socket_;  // invalid after it was moved from
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

// Connects to a PacketListener; the connection blocks. UNAVAILABLE, with the reason, if nobody accepts until
// `deadline`. A signal's handler does not end the attempt.
absl::StatusOr<FileDescriptor> ConnectPackets(const std::string& path, std::chrono::steady_clock::time_point deadline);

// Makes the next blocking call on the socket end at `deadline`, with EAGAIN. False if that has passed.
bool SetDeadline(const FileDescriptor& socket, std::chrono::steady_clock::time_point deadline);

}  // namespace refit

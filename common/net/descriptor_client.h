// Takes descriptors of shared memory from a service, or offers it one, over the socket beside its Unix socket. So
// processes share memory that do not see each other in /proc: in containers that share only a volume, or of two users.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/safetensors/posix_file.h"

namespace refit {

// Where a service on this Unix socket passes descriptors: "/path.fds" for "/path".
std::string DescriptorPath(absl::string_view unix_path);

// The socket for descriptors of the service at an address. It may not exist.
class DescriptorClient {
 public:
  // No address: for a service that passes none.
  DescriptorClient() = default;
  explicit DescriptorClient(absl::string_view address);

  // Whether the address is a Unix socket.
  bool has_path() const { return !path_.empty(); }

  // The descriptor that the service has announced with this key. UNAVAILABLE, with the reason, if the service does not
  // give it within two seconds; RESOURCE_EXHAUSTED, naming limit and setting, if this process may not have it.
  absl::StatusOr<FileDescriptor> Take(absl::string_view key) const;

  // Lets the service use this descriptor as long as the result is open, and at most some seconds. The service must be
  // told the key. Errors as Take.
  absl::StatusOr<FileDescriptor> Offer(absl::string_view key, int fd) const;

 private:
  std::string path_;
};

}  // namespace refit

#include "server/unix_sockets.h"

#include <optional>
#include <utility>

#include "common/net/status.h"
#include "common/net/unix_socket.h"
#include "server/listen_addresses.h"

namespace refit {
namespace {

std::optional<mode_t> ModeOf(const ServerOptions& options) {
  return options.socket_mode == 0 ? std::nullopt : std::optional<mode_t>(options.socket_mode);
}

}  // namespace

bool PassesDescriptors(const ServerOptions& options) {
  return options.store.shared_memory && !UnixPaths(options.listen).empty();
}

absl::Status UnixSockets::Open(const ServerOptions& options, DescriptorTable& descriptors) {
  const absl::MutexLock lock(&mutex_);
  for (const std::string& path : UnixPaths(options.listen)) {
    if (absl::Status status = CheckPathIsFree(path); !status.ok()) return Annotate(status, "cannot listen");
    if (!PassesDescriptors(options)) continue;
    absl::StatusOr<std::unique_ptr<DescriptorEndpoint>> started =
        DescriptorEndpoint::Start(path, ModeOf(options), descriptors);
    if (!started.ok()) return Annotate(started.status(), "cannot pass descriptors of shared memory");
    endpoints_.push_back(*std::move(started));
  }
  return absl::OkStatus();
}

absl::Status UnixSockets::SetModes(const ServerOptions& options) {
  const std::optional<mode_t> mode = ModeOf(options);
  if (!mode.has_value()) return absl::OkStatus();
  for (const std::string& path : UnixPaths(options.listen)) {
    if (absl::Status status = SetSocketMode(path, *mode); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void UnixSockets::Close() {
  const absl::MutexLock lock(&mutex_);
  endpoints_.clear();
}

}  // namespace refit

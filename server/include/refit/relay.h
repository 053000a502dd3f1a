// Starts a service of either kind: a root, or a relay, which serves what another service has.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "refit/server.h"
#include "refit/server_options.h"

namespace refit {

// As RefitServer::Start. If options.upstream has an address, the service is a relay of the service there. It takes each
// version while it is pushed, passes each chunk on once it is verified, and keeps versions as any service does; it
// needs memory for them. Numbers, digests, states, held installs and aborts are the root's. Workers below count in the
// root's fleet. A relay refuses pushes.
//
// It starts although the service above does not answer, and serves what it has; GetServerInfo and the log tell. With
// several addresses it goes to the next one, as a worker does (ChannelOptions::address), and a transfer goes on there.
// options.upstream: the token or certificate needs the role `relay` there.
absl::StatusOr<std::unique_ptr<RefitServer>> StartServer(const ServerOptions& options);

}  // namespace refit

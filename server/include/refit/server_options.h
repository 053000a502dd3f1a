// Options of a service: the same settings as refit-server's flags.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "refit/authorization_files.h"
#include "refit/channel_options.h"
#include "refit/event_log.h"
#include "refit/limits.h"
#include "refit/security.h"
#include "refit/store_options.h"

namespace refit {

inline constexpr size_t kMaxZoneBytes = 128;

// A plain value. RefitServer::Start checks and copies it.
struct ServerOptions {
  // "host:port" (port 0: any free port), or "unix:/path"; or several of these, separated by commas. Without TLS, a host
  // that is not loopback is refused unless allow_plaintext is set.
  std::string listen = "127.0.0.1:50051";
  // Where this service is, such as a rack, a zone of a cloud, or a host: for people. At most kMaxZoneBytes visible
  // characters. Empty: not told.
  std::string zone;
  // Permissions of Unix sockets, such as 0660. 0: what the umask leaves.
  uint32_t socket_mode = 0;
  bool allow_plaintext = false;
  ServerSecurity security;
  // Without these files, everyone may do everything.
  AuthorizationFiles authorization;
  StoreOptions store;
  Limits limits;
  // Whether workers that hold an earlier version may get only what has changed since. Limits::delta_bytes is for it.
  bool deltas = true;
  // Files with model families of the owner's, separated by commas, besides those that are built in. A peer can only
  // name them.
  std::string adapter_files;
  // Folder in which committed versions are also kept, to serve them again after a restart. Empty: none. Cannot be
  // combined with streamed versions (retain_versions 0).
  std::string spool;
  // Accepts a spool folder that belongs to another user, or that others may write to.
  bool trust_spool = false;
  // "host:port" at which metrics are served to Prometheus in plain HTTP: an IPv4 address or localhost, loopback unless
  // allow_plaintext. Empty: nowhere.
  std::string metrics;
  // "host:port" or "unix:/path" at which health probes (grpc.health.v1) are answered in plain text, whatever `security`
  // requires elsewhere. Empty: only on `listen`.
  std::string health;
  // Threads that convert tensors. Each stream that is pushed uses one at a time. A large tensor published in process
  // uses all of them, and the calling thread. 0: one for every two CPUs that the process may use, at least one.
  int convert_threads = 0;
  EventLog log;
  // The name of this service, for people: in the fleets of services above it, and in relays below. Empty: host and
  // process.
  std::string name;
  // With an address, this is a relay: it serves the versions of the service there. Then StartServer (refit/relay.h)
  // starts it; nobody may push to it; retain_versions must not be 0. It may have several addresses, as a worker;
  // without a zone of its own, it has the service's.
  ChannelOptions upstream;
  // Over how many connections a relay pulls each version; 0: as many as pay (PullOptions::streams). With several, whole
  // tensors pass on, not chunks.
  uint32_t upstream_streams = 1;

  bool is_relay() const { return !upstream.address.empty(); }
};

}  // namespace refit

// Options for connecting to a service.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "refit/security.h"

namespace refit {

// How payloads are sent. kAuto: through shared memory if both ends are on one host and the service allows it, and they
// are of one user and see each other's processes, or are connected by a Unix socket; otherwise over the connection.
// kSharedMemory: as kAuto, but an error if shared memory is not possible.
enum class Transport { kAuto, kWire, kSharedMemory };

struct ChannelOptions {
  // "host:port", "[::1]:port" or "unix:/path". Workers (Subscriber, Worker) may have several, with commas between:
  // services that have the same versions, such as relays. The first is used; when it is down, too busy or behind, the
  // next, where pulls go on with what they have. "dns:///name:port" stands for all addresses of the name.
  std::string address;
  // Where this worker is. Of several addresses, those whose service is in the same zone (`refit-server --zone`) come
  // first. Empty: they count as equal.
  std::string zone;
  Transport transport = Transport::kAuto;
  // How long connecting may take before it fails with UNAVAILABLE.
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(10);
  // If given, called many times a second while connecting. If it returns true, connecting ends with CANCELLED.
  std::function<bool()> is_cancelled;
  // Interval and timeout of HTTP/2 pings. A lost peer is noticed after the sum of both.
  std::chrono::milliseconds keepalive_interval = std::chrono::seconds(10);
  std::chrono::milliseconds keepalive_timeout = std::chrono::seconds(10);
  // Plain text by default.
  ClientSecurity security;
  // Called from threads of the channel after files of `security` have changed.
  ReloadReport on_reload;
};

}  // namespace refit

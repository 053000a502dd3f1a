// Where a service is, and how to reach it.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "refit/security.h"

namespace refit {

// How payloads travel. kAuto: through shared memory where both ends are on one host, of one user, and the service
// allows it; over the connection otherwise. kSharedMemory: an error instead.
enum class Transport { kAuto, kWire, kSharedMemory };

struct ChannelOptions {
  // "host:port", "ipv6:[::1]:port" or "unix:/path".
  std::string address;
  Transport transport = Transport::kAuto;
  // How long to wait for the connection before UNAVAILABLE.
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(10);
  // Asked many times a second meanwhile, if given: true ends it with CANCELLED.
  std::function<bool()> is_cancelled;
  // Interval and patience of HTTP/2 pings: a peer that is gone is noticed after their sum.
  std::chrono::milliseconds keepalive_interval = std::chrono::seconds(10);
  std::chrono::milliseconds keepalive_timeout = std::chrono::seconds(10);
  // Plain text unless it says otherwise.
  ClientSecurity security;
  // Called from threads of the channel's when files of `security` have changed.
  ReloadReport on_reload;
};

}  // namespace refit

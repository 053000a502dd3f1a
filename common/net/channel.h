// Channels, server arguments and allocator settings that bulk data needs; see ARCHITECTURE.md, "Moving bulk data".
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/net/credentials.h"

namespace refit {

// Largest message that is sent or accepted by default, whatever a tensor's size. Bytes.
inline constexpr int kMaxMessageBytes = 4 << 20;

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

// Comes before anything that uses gRPC. FAILED_PRECONDITION in a child of a process that has used it before the fork:
// gRPC's threads are not there, and its epoll sets and sockets are the parent's, which what is done to them would kill.
absl::Status StartGrpc();

// A connected channel. UNAVAILABLE, naming the address and the reason that is known (such as a certificate that is not
// trusted), if it does not connect in time; INVALID_ARGUMENT for what CheckAddress refuses; as StartGrpc and
// MakeClientCredentials. In a child of a fork what was made here is let go of without a word to the service.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const ChannelOptions& options);

// Sets message size, keepalive policy and flow control of a server. A peer that stops answering, though its connection
// stands, is given up after `peer_timeout`: its calls then end as cancelled.
void ConfigureServer(grpc::ServerBuilder& builder, int max_message_bytes,
                     std::chrono::milliseconds peer_timeout = std::chrono::seconds(10));

// Keeps glibc from giving gRPC's receive buffers back to the kernel after each message (does nothing with another
// allocator), and abseil from looking for lock cycles. Call first in main; libraries do not call it.
void TuneForBulkData();

// The latter only, which no other part of the process notices.
void IgnoreLockCycles();

}  // namespace refit

// Channels, server arguments and allocator settings that bulk data needs; see ARCHITECTURE.md, "Moving bulk data".
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace refit {

// Largest message that is sent or accepted by default, whatever a tensor's size. Bytes.
inline constexpr int kMaxMessageBytes = 4 << 20;

// How payloads travel. kAuto: through shared memory where both ends are on one host, of one user, and the service
// allows it; over the connection otherwise. kSharedMemory: an error instead.
enum class Transport { kAuto, kWire, kSharedMemory };

struct ChannelOptions {
  // "host:port", "ipv6:[::1]:port" or "unix:/path". Plain text; only for loopback until TLS comes.
  std::string address;
  Transport transport = Transport::kAuto;
  // How long to wait for the connection before UNAVAILABLE.
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(10);
  // Interval and patience of HTTP/2 pings: a peer that is gone is noticed after their sum.
  std::chrono::milliseconds keepalive_interval = std::chrono::seconds(10);
  std::chrono::milliseconds keepalive_timeout = std::chrono::seconds(10);
};

// A connected channel. UNAVAILABLE, naming the address, if it does not connect in time; INVALID_ARGUMENT for an empty
// address.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const ChannelOptions& options);

// Sets message size, keepalive policy and flow control of a server.
void ConfigureServer(grpc::ServerBuilder& builder, int max_message_bytes);

// Keeps glibc from giving gRPC's receive buffers back to the kernel after each message (does nothing with another
// allocator), and abseil from looking for lock cycles. Call first in main; libraries do not call it.
void TuneForBulkData();

}  // namespace refit

// What the kernel knows of a TCP connection of this host, and which of its settings hold the connection back.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace refit {

// Of the side that sends. Times are sums since the connection was made.
struct TcpState {
  std::chrono::microseconds round_trip{0};
  std::chrono::microseconds busy{0};            // had something to send
  std::chrono::microseconds send_limited{0};    // of this: its send buffer was full
  std::chrono::microseconds window_limited{0};  // of this: the peer's receive window was full
};

// Of the connection with this peer ("ipv4:10.0.0.7:41000", as gRPC names it; not of Unix sockets). NOT_FOUND if there
// is none; UNAVAILABLE if the kernel does not tell, as in some sandboxes.
absl::StatusOr<TcpState> StateOfConnection(const std::string& peer);

// The kernel's largest buffers for a connection, in bytes; nullopt if they cannot be read.
struct TcpBuffers {
  uint64_t send = 0;     // net.ipv4.tcp_wmem
  uint64_t receive = 0;  // net.ipv4.tcp_rmem
};
std::optional<TcpBuffers> LargestTcpBuffers();

// Which setting has held the connection back for a good part of the time between two states, and what it allows: "...
// net.ipv4.tcp_wmem ...". Empty if none has.
std::string HeldBackBy(const TcpState& before, const TcpState& after, const TcpBuffers& buffers);

}  // namespace refit

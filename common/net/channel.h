// Channels and server arguments that bulk data needs; see ARCHITECTURE.md, "Moving bulk data".
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <memory>

#include "absl/status/statusor.h"
#include "refit/channel_options.h"
#include "refit/sizes.h"

namespace refit {

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

}  // namespace refit

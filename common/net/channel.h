// Makes channels and configures servers for bulk data; see ARCHITECTURE.md, "Moving bulk data".
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <memory>

#include "absl/status/statusor.h"
#include "refit/channel_options.h"
#include "refit/sizes.h"

namespace refit {

// Call it before anything that uses gRPC. FAILED_PRECONDITION in a child of a process that used gRPC before the fork:
// gRPC's threads do not exist there, and its epoll sets and sockets are shared with the parent, whose connections would
// break.
absl::Status StartGrpc();

// Makes a connected channel. UNAVAILABLE, naming the address and the known reason (such as an untrusted certificate),
// if it does not connect in time; INVALID_ARGUMENT if CheckAddress rejects the address, or it is a list; otherwise
// errors as StartGrpc and MakeClientCredentials. In a child of a fork, the channel is dropped without a message to the
// service.
absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const ChannelOptions& options);

// As Connect, but tries once: UNAVAILABLE, with the reason, as soon as that has failed. For a caller that has other
// addresses.
absl::StatusOr<std::shared_ptr<grpc::Channel>> ConnectOnce(const ChannelOptions& options);

// Sets message size, keepalive policy and flow control of a server. A peer that does not answer for `peer_timeout`,
// though its connection exists, is dropped: its calls end as cancelled.
void ConfigureServer(grpc::ServerBuilder& builder, int max_message_bytes,
                     std::chrono::milliseconds peer_timeout = std::chrono::seconds(10));

}  // namespace refit

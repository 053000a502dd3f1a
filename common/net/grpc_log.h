// Redirects gRPC's own log messages.
#pragma once

#include <functional>
#include <string>

namespace refit {

// Passes gRPC's messages to `write`, from gRPC's threads, instead of writing them to stderr, which would block those
// threads if no one reads it. GRPC_VERBOSITY sets the level; errors by default. This holds for the whole process, and
// cannot be undone. A failed assertion of gRPC is always written to stderr, because the process is about to abort.
void TakeGrpcLog(std::function<void(std::string message)> write);

// Whether the user has asked for gRPC's messages: GRPC_VERBOSITY or GRPC_TRACE is set.
bool GrpcLogIsWanted();

// Writes gRPC's messages to stderr without blocking, if GrpcLogIsWanted. Otherwise they are dropped: statuses
// contain what a user must know, and these messages refer to gRPC's own files.
void KeepGrpcLogFromBlocking();

}  // namespace refit

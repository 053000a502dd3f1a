// What gRPC itself has to say.
#pragma once

#include <functional>
#include <string>

namespace refit {

// Hands gRPC's messages to `write`, from its threads, instead of writing them to stderr, where they would hold it up if
// nobody reads that. How much it says is GRPC_VERBOSITY's to tell; errors by default. For good, in the whole process.
// An assertion of gRPC's that failed is said on stderr in any case: the process is about to be aborted.
void TakeGrpcLog(std::function<void(std::string message)> write);

// To stderr if GRPC_VERBOSITY or GRPC_TRACE asks for it, without holding anything up; otherwise nowhere: what a user
// has to know is in a status, and these lines speak of gRPC's own files.
void KeepGrpcLogFromBlocking();

}  // namespace refit

// What gRPC itself has to say.
#pragma once

#include <functional>
#include <string>

namespace refit {

// Hands gRPC's messages to `write`, from its threads, instead of writing them to stderr, where they would hold it up if
// nobody reads that. How much it says is GRPC_VERBOSITY's to tell; errors by default. For good, in the whole process.
void TakeGrpcLog(std::function<void(std::string message)> write);

// The same, to stderr, without holding anything up.
void KeepGrpcLogFromBlocking();

}  // namespace refit

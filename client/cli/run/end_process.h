// Ends the process after a command.
#pragma once

namespace refit::cli {

// Flushes printed output and ends the process with `code`, without destroying static objects. gRPC's threads, for
// example in a TLS handshake, run until the end and would use destroyed objects.
[[noreturn]] void EndProcess(int code);

}  // namespace refit::cli

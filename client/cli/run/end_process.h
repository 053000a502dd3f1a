// The end of a command.
#pragma once

namespace refit::cli {

// Ends the process with `code`. What was printed is written, but no static object is destroyed: gRPC's threads run
// until the end, a TLS handshake among them, and would find what they use gone.
[[noreturn]] void EndProcess(int code);

}  // namespace refit::cli

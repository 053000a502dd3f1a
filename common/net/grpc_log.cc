#include "common/net/grpc_log.h"

#include <grpc/support/log.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/process/line_writer.h"

namespace refit {
namespace {

using Write = std::function<void(std::string message)>;

// Both live as long as gRPC's threads, that is, as the process.
const Write* grpc_write = nullptr;

LineWriter& Stderr() {
  static LineWriter& writer = *std::make_unique<LineWriter>(STDERR_FILENO, [](uint64_t lines) {
                                 return absl::StrCat("(", lines, " lines of gRPC's dropped: nobody read them)");
                               }).release();
  return writer;
}

// gRPC aborts the process next, so it must be written at once.
void SayLastWords(const gpr_log_func_args& said) {
  const std::string line = absl::StrCat("gRPC: ", said.file, ":", said.line, "] ", said.message, "\n");
  (void)!write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

void TakeGrpcLog(Write write) {
  grpc_write = std::make_unique<const Write>(std::move(write)).release();
  gpr_set_log_function([](gpr_log_func_args* said) {
    if (absl::StartsWith(said->message, "assertion failed")) return SayLastWords(*said);
    (*grpc_write)(absl::StrCat("gRPC: ", gpr_log_severity_string(said->severity), said->file, ":", said->line, "] ",
                               said->message));
  });
}

bool GrpcLogIsWanted() { return std::getenv("GRPC_VERBOSITY") != nullptr || std::getenv("GRPC_TRACE") != nullptr; }

void KeepGrpcLogFromBlocking() {
  if (!GrpcLogIsWanted()) return TakeGrpcLog([](const std::string&) {});
  TakeGrpcLog([](std::string message) { Stderr().Write(std::move(message)); });
}

}  // namespace refit

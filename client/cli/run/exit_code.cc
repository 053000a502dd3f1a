#include "client/cli/run/exit_code.h"

#include <poll.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace refit::cli {

const char* const kExitCodeHelp =
    "Exit codes:\n"
    "  0    done\n"
    "  1    the operation failed (any failure of `refit convert`)\n"
    "  2    wrong usage: unknown option, missing argument, options that do not go together\n"
    "  3    not found: no such version, tensor, model or file\n"
    "  4    the service cannot be reached\n"
    "  5    a deadline passed\n"
    "  6    wrong bytes: a digest or --verify does not match\n"
    "  130  interrupted (Ctrl-C or SIGTERM)\n";

namespace {

constexpr char kUsagePayload[] = "refit/usage";

// An earlier failed write has lost its errno, but the pipe still shows whether it has a reader.
bool HasNoReader(int descriptor) {
  pollfd pipe = {descriptor, POLLOUT, 0};
  return poll(&pipe, 1, 0) == 1 && (pipe.revents & POLLERR) != 0;
}

}  // namespace

absl::Status UsageError(absl::string_view message) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kUsagePayload, absl::Cord());
  return status;
}

bool IsUsageError(const absl::Status& status) { return status.GetPayload(kUsagePayload).has_value(); }

absl::Status WithStdoutWritten(const absl::Status& status) {
  errno = 0;
  std::cout.flush();
  const bool is_written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && std::cout.good();
  if (is_written || errno == EPIPE || !status.ok() || HasNoReader(fileno(stdout))) return status;
  return absl::UnknownError(
      absl::StrCat("done, but stdout could not be written", errno == 0 ? "" : ": ", errno == 0 ? "" : strerror(errno)));
}

int ExitCode(const absl::Status& status) {
  if (IsUsageError(status)) return kExitUsage;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kUnavailable:
      return kExitUnavailable;
    case absl::StatusCode::kDeadlineExceeded:
      return kExitTimeout;
    case absl::StatusCode::kDataLoss:
      return kExitDataLoss;
    case absl::StatusCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitFailed;
  }
}

}  // namespace refit::cli

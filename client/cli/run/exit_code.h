// What the exit code of `refit` says. Documented in --help and in this folder's README.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace refit::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitUnavailable = 4;
inline constexpr int kExitTimeout = 5;
inline constexpr int kExitDataLoss = 6;
inline constexpr int kExitInterrupted = 130;

extern const char* const kExitCodeHelp;

// A mistake that shows only once files were looked into: INVALID_ARGUMENT, but reported, and with the exit code, as one
// of the command line.
absl::Status UsageError(absl::string_view message);
bool IsUsageError(const absl::Status& status);

// `status`, or, if that is good, whether all that was printed on stdout could be written. A pipe's reader that went
// away has what it wanted: that is no error. At the end of a command.
absl::Status WithStdoutWritten(const absl::Status& status);

// The exit code of a command that ended with `status`. CANCELLED means that the user interrupted it.
int ExitCode(const absl::Status& status);

}  // namespace refit::cli

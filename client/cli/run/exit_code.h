// The exit codes of `refit`. --help and this folder's README document them.
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

// For a mistake in the arguments that shows only after files were read. The status is INVALID_ARGUMENT, but it is
// reported, and ends the program, as a usage error.
absl::Status UsageError(absl::string_view message);
bool IsUsageError(const absl::Status& status);

// Call it at the end of a command. Returns an error `status` as it is; otherwise an error if not all output could be
// written to stdout. A pipe that its reader closed is no error: the reader had what it wanted.
absl::Status WithStdoutWritten(const absl::Status& status);

// The exit code of a command that ended with `status`. CANCELLED means that the user interrupted it.
int ExitCode(const absl::Status& status);

}  // namespace refit::cli

// Declares the subcommands and their common options.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/cli/run/common_options.h"
#include "client/cli/run/exit_code.h"
#include "refit/dtype.h"
#include "refit/v1/pull.pb.h"

namespace refit::cli {

// The subcommand that the user called, ready to run.
struct Invocation {
  // For example "push".
  std::string name;
  std::function<absl::Status()> run;
  // Maps the outcome to an exit code.
  std::function<int(const absl::Status&)> exit_code;
};

// Adds a subcommand with a one-line summary. `run` is called once, after all arguments are parsed. `footer` holds
// examples.
CLI::App* AddCommand(CLI::App& app, Invocation& invocation, const std::string& name, const std::string& summary,
                     const std::string& footer, std::function<absl::Status()> run,
                     std::function<int(const absl::Status&)> exit_code = ExitCode);

// Adds --json and --quiet.
void AddOutputOptions(CLI::App* command, CommonOptions& options);
// Adds --server, --connect-timeout, the TLS and token options, --json and --quiet.
void AddServerOptions(CLI::App* command, CommonOptions& options);
// The same for a worker: --server may name several services, and --zone says which are near.
void AddServersOptions(CLI::App* command, CommonOptions& options);
// Adds --model, which names one model.
void AddModelOption(CLI::App* command, CommonOptions& options);
// Adds --model as a filter: all models if it is not given.
void AddModelFilter(CLI::App* command, CommonOptions& options);

// Checks of option values. Their messages say what was expected: an integer of at least `least`; "latest" or a positive
// number; seconds from 0 to ten years; a fraction from 0 to 1; one of several words.
CLI::Validator AtLeast(int64_t least);
CLI::Validator VersionOrLatest();
CLI::Validator Seconds();
CLI::Validator Fraction();
CLI::Validator OneOf(const std::vector<std::string>& words);

// Adds an option that takes one of the allowed element types, in upper or lower case.
CLI::Option* AddDTypeOption(CLI::App* command, const std::string& name, const std::vector<DType>& allowed,
                            std::function<void(DType)> set, const std::string& help);

// Parses a string that VersionOrLatest accepted. nullopt means "latest".
std::optional<uint64_t> ParseVersion(const std::string& text);
v1::VersionSelector SelectVersion(const std::string& text);

// Each function adds one subcommand, from a file of its own.
void AddAdaptersCommand(CLI::App& app, Invocation& invocation);
void AddPushCommand(CLI::App& app, Invocation& invocation);
void AddPullCommand(CLI::App& app, Invocation& invocation);
void AddWatchCommand(CLI::App& app, Invocation& invocation);
void AddStatusCommand(CLI::App& app, Invocation& invocation);
void AddVersionsCommand(CLI::App& app, Invocation& invocation);
void AddDescribeCommand(CLI::App& app, Invocation& invocation);
void AddConvertCommand(CLI::App& app, Invocation& invocation);
void AddFollowCommand(CLI::App& app, Invocation& invocation);
void AddAwaitCommand(CLI::App& app, Invocation& invocation);
void AddReleaseCommand(CLI::App& app, Invocation& invocation);
void AddAbortCommand(CLI::App& app, Invocation& invocation);
void AddCertsCommand(CLI::App& app, Invocation& invocation);

}  // namespace refit::cli

// How the subcommands are declared.
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

// The command that was asked for, ready to run.
struct Invocation {
  // Such as "push".
  std::string name;
  std::function<absl::Status()> run;
  // Maps the outcome to an exit code.
  std::function<int(const absl::Status&)> exit_code;
};

// A subcommand with its one-line summary; `run` is called once after everything was parsed. `footer` holds examples.
CLI::App* AddCommand(CLI::App& app, Invocation& invocation, const std::string& name, const std::string& summary,
                     const std::string& footer, std::function<absl::Status()> run,
                     std::function<int(const absl::Status&)> exit_code = ExitCode);

// --json and --quiet.
void AddOutputOptions(CLI::App* command, CommonOptions& options);
// --server, --connect-timeout, TLS and token; these, and --json and --quiet.
void AddServerOptions(CLI::App* command, CommonOptions& options);
// --model, for one model.
void AddModelOption(CLI::App* command, CommonOptions& options);
// --model, as a restriction: all models unless it is given.
void AddModelFilter(CLI::App* command, CommonOptions& options);

// Checks of option values, with messages that say what was expected. Whole numbers of at least `least`; "latest" or a
// positive number; seconds, not negative and at most ten years; one of some words.
CLI::Validator AtLeast(int64_t least);
CLI::Validator VersionOrLatest();
CLI::Validator Seconds();
CLI::Validator OneOf(const std::vector<std::string>& words);

// --adapter, one of those that there are.
CLI::Option* AddAdapterOption(CLI::App* command, std::string& adapter);

// An option that takes one of these element types, in any case.
CLI::Option* AddDTypeOption(CLI::App* command, const std::string& name, const std::vector<DType>& allowed,
                            std::function<void(DType)> set, const std::string& help);

// Of a string that VersionOrLatest accepted; nullopt for "latest".
std::optional<uint64_t> ParseVersion(const std::string& text);
v1::VersionSelector SelectVersion(const std::string& text);

// Adders of the subcommands, one a file.
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

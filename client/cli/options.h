// What the subcommands have in common.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/net/channel.h"
#include "refit/v1/pull.pb.h"

namespace refit::cli {

struct CommonOptions {
  std::string server = "127.0.0.1:50051";
  double connect_timeout_seconds = 10;
  std::string model = "default";
  bool json = false;
  bool quiet = false;

  ChannelOptions Channel() const;
};

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
                     const std::string& footer, std::function<absl::Status()> run);

// --json and --quiet.
void AddOutputOptions(CLI::App* command, CommonOptions& options);
// --server, --connect-timeout; these, and --json and --quiet.
void AddServerOptions(CLI::App* command, CommonOptions& options);
// --model, for one model.
void AddModelOption(CLI::App* command, CommonOptions& options);
// --model, as a restriction: all models unless it is given.
void AddModelFilter(CLI::App* command, CommonOptions& options);

// "latest" or a positive number.
CLI::Validator VersionOrLatest();
// A number of seconds: not negative, at most ten years.
CLI::Validator Seconds();

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
void AddAbortCommand(CLI::App& app, Invocation& invocation);

}  // namespace refit::cli

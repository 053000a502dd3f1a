// The `refit` command line: parses arguments, runs one subcommand, and maps its outcome to an exit code.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/cli/options/options.h"
#include "client/cli/run/end_process.h"
#include "client/cli/run/exit_code.h"
#include "client/cli/terminal/status_lines.h"
#include "common/net/channel.h"
#include "common/net/grpc_log.h"
#include "common/process/standard_descriptors.h"
#include "common/terminal/help_formatter.h"
#include "common/terminal/package_options.h"
#include "common/terminal/suggestion.h"
#include "common/terminal/trim_variables.h"
#include "refit/tuning.h"
#include "refit/version.h"

namespace refit::cli {
namespace {

const char kExamples[] =
    "Examples:\n"
    "  refit push --version 1 checkpoint/                # a trainer's weights\n"
    "  refit push --synthetic gemma4_26b_a4b --layers 2  # values made on the fly\n"
    "  refit pull --version latest --out hf.safetensors  # the newest, verified\n"
    "  refit follow --out policy.safetensors             # each version as it comes\n"
    "  refit watch --fleet                               # versions and workers\n"
    "  refit describe latest                             # its manifest\n"
    "\n"
    "`refit COMMAND --help`, or `refit help COMMAND`, explains a command. Sizes are decimal (1 GB = 10^9 bytes). "
    "REFIT_SERVER names the service for all commands, REFIT_TLS_CA, REFIT_TLS_CERT, REFIT_TLS_KEY, "
    "REFIT_TLS_SERVER_NAME and REFIT_TOKEN_FILE say how to prove who is who; NO_COLOR switches colours and bars "
    "off.\n\n";

void PrintUsage(const std::string& message) {
  SayOnStderr(absl::StrCat("refit: usage: ", message, "\nTry 'refit --help' or 'refit COMMAND --help'."));
}

std::string DidYouMean(const std::string& word, const std::vector<std::string>& candidates) {
  const std::string meant = Meant(word, candidates);
  return meant.empty() ? "" : absl::StrCat("; did you mean '", meant, "'?");
}

std::vector<std::string> CommandNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

std::vector<std::string> OptionNames(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// The error text for a first word that is not a command; empty if it is one. This is checked first: otherwise the
// options after it would be parsed as ours.
std::string UnknownCommand(const CLI::App& app, const std::string& word) {
  const std::vector<std::string> names = CommandNames(app);
  const bool is_known = absl::StartsWith(word, "-") || std::find(names.begin(), names.end(), word) != names.end();
  return is_known ? "" : absl::StrCat("there is no command '", word, "'", DidYouMean(word, names));
}

// The error text for a word that the command does not take; empty if there is none.
std::string UnknownWord(const CLI::App& app) {
  const std::vector<CLI::App*> commands = app.get_subcommands();
  const std::vector<std::string> words = app.remaining(/*recurse=*/true);
  if (words.empty()) return "";
  const std::string& word = words.front();
  const CLI::App& command = commands.empty() ? app : *commands.front();
  const std::string name = commands.empty() ? "refit" : absl::StrCat("refit ", command.get_name());
  if (!absl::StartsWith(word, "-")) return absl::StrCat("'", word, "' is more than ", name, " takes");
  return absl::StrCat(name, " has no option '", word, "'", DidYouMean(word, OptionNames(command)));
}

int Usage(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) {  // --help, --version
    (void)app.exit(error);
    const absl::Status status = WithStdoutWritten(absl::OkStatus());
    if (!status.ok()) SayOnStderr(absl::StrCat("refit: ", status.message()));
    return ExitCode(status);
  }
  const std::string unknown = UnknownWord(app);
  PrintUsage(unknown.empty() ? error.what() : unknown);
  return kExitUsage;
}

// `refit help` and `refit help COMMAND` are `refit --help` and `refit COMMAND --help`.
std::vector<std::string> Arguments(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && arguments.front() == "help") {
    arguments.erase(arguments.begin());
    arguments.resize(std::min<size_t>(arguments.size(), 1));
    arguments.emplace_back("--help");
  }
  return arguments;
}

// " (from the environment: REFIT_SERVER)" if the service was unreachable or rejected the caller, and options came from
// environment variables, which may be the cause.
std::string FromEnvironment(CLI::App& app, const absl::Status& status) {
  const bool matters = absl::IsUnavailable(status) || absl::IsUnauthenticated(status) ||
                       absl::IsPermissionDenied(status) || absl::IsInvalidArgument(status);
  if (!matters) return "";
  std::vector<std::string> variables;
  for (CLI::App* command : app.get_subcommands()) {
    for (const CLI::Option* option : command->get_options()) {
      const char* value = option->get_envname().empty() ? nullptr : std::getenv(option->get_envname().c_str());
      if (value != nullptr && option->results() == std::vector<std::string>{value}) {
        variables.push_back(option->get_envname());
      }
    }
  }
  return variables.empty() ? "" : absl::StrCat(" (from the environment: ", absl::StrJoin(variables, ", "), ")");
}

// "; see --token-file" if the service requires authentication and no token or certificate was given.
std::string WayToBeKnown(const CLI::App& app, const absl::Status& status) {
  if (!absl::IsUnauthenticated(status)) return "";
  for (const CLI::App* command : app.get_subcommands()) {
    const CLI::Option* token = command->get_option_no_throw("--token-file");
    if (token != nullptr && token->count() == 0) return "; see --token-file";
  }
  return "";
}

// Prints the error as one line, even if the message has several: "refit: push: ...", or "refit: push of version 3 to
// ...: ...".
void PrintError(const std::string& command, const absl::Status& status, const std::string& addition) {
  std::string message = absl::StrReplaceAll(status.message(), {{"\n", " "}, {"\r", " "}});
  if (IsUsageError(status)) return PrintUsage(message);
  if (!absl::StartsWith(message, command + " of ")) message = absl::StrCat(command, ": ", message);
  SayOnStderr(absl::StrCat("refit: ", message, addition));
}

int Main(int argc, char** argv) {
  CLI::App app("Streams model weights from a trainer to inference workers, converted on the way.", "refit");
  app.formatter(std::make_shared<HelpFormatter>());
  Invocation invocation;
  AddPushCommand(app, invocation);
  AddPullCommand(app, invocation);
  AddFollowCommand(app, invocation);
  AddAwaitCommand(app, invocation);
  AddReleaseCommand(app, invocation);
  AddWatchCommand(app, invocation);
  AddStatusCommand(app, invocation);
  AddAdaptersCommand(app, invocation);
  AddVersionsCommand(app, invocation);
  AddDescribeCommand(app, invocation);
  AddAbortCommand(app, invocation);
  AddConvertCommand(app, invocation);
  AddCertsCommand(app, invocation);
  app.require_subcommand(1);
  app.set_version_flag("--version", absl::StrCat("refit ", SoftwareVersion()));
  app.footer(absl::StrCat(kExamples, kExitCodeHelp));
  AddPackageOptions(app, absl::StrCat("refit ", SoftwareVersion()));
  TrimVariables(app);
  std::vector<std::string> arguments = Arguments(argc, argv);
  const std::string unknown = arguments.empty() ? "a command is missing" : UnknownCommand(app, arguments.front());
  if (!unknown.empty()) {
    PrintUsage(unknown);
    return kExitUsage;
  }
  std::reverse(arguments.begin(), arguments.end());  // CLI11 expects them in reverse order
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::ParseError& error) {
    return Usage(app, error);
  }
  const absl::Status status = WithStdoutWritten(invocation.run());
  if (!status.ok()) {
    PrintError(invocation.name, status, WayToBeKnown(app, status) + FromEnvironment(app, status));
  }
  return invocation.exit_code(status);
}

}  // namespace
}  // namespace refit::cli

int main(int argc, char** argv) {
  refit::ReserveStandardDescriptors();
  std::signal(SIGPIPE, SIG_IGN);  // a write to a closed pipe then returns EPIPE, which is handled
  refit::TuneForBulkData();
  refit::KeepGrpcLogFromBlocking();
  int code = refit::cli::kExitFailed;
  try {
    code = refit::cli::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "refit: %s\n", error.what());
  }
  refit::cli::EndProcess(code);
}

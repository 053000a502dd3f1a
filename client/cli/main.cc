// The `refit` command line: parses, runs one subcommand, maps its outcome to an exit code.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/cli/exit_code.h"
#include "client/cli/help_formatter.h"
#include "client/cli/options.h"
#include "client/cli/status_lines.h"
#include "common/net/channel.h"
#include "common/net/grpc_log.h"
#include "common/net/version_info.h"

namespace refit::cli {
namespace {

const char kExamples[] =
    "Examples:\n"
    "  refit push --version 1 checkpoint/               a trainer's weights become version 1\n"
    "  refit push --synthetic gemma4_26b_a4b --layers 2 values made on the fly, next version\n"
    "  refit pull --version latest --out hf.safetensors the newest version, verified, as a file\n"
    "  refit follow --out policy.safetensors            each version as it comes, installed as a file\n"
    "  refit watch --fleet                              versions and workers, live\n"
    "  refit describe latest                            its manifest\n"
    "\n"
    "`refit COMMAND --help` explains a command. Sizes are decimal (1 GB = 10^9 bytes).\n"
    "REFIT_SERVER names the service for all commands, REFIT_TLS_CA, REFIT_TLS_CERT, REFIT_TLS_KEY, "
    "REFIT_TLS_SERVER_NAME\n"
    "and REFIT_TOKEN_FILE say how to prove who is who; NO_COLOR switches colours and bars off.\n\n";

void PrintUsage(const std::string& message) {
  SayOnStderr(absl::StrCat("refit: usage: ", message, "\nTry 'refit --help' or 'refit COMMAND --help'."));
}

int Usage(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) {  // --help, --version
    (void)app.exit(error);
    const absl::Status status = WithStdoutWritten(absl::OkStatus());
    if (!status.ok()) SayOnStderr(absl::StrCat("refit: ", status.message()));
    return ExitCode(status);
  }
  PrintUsage(error.what());
  return kExitUsage;
}

// " (from the environment: REFIT_SERVER)", where the service could not be reached, or did not know us, and options that
// nobody typed may be why.
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

// One line, whatever the message holds: "refit: push: ...", or "refit: push of version 3 to ...: ...".
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
  AddVersionsCommand(app, invocation);
  AddDescribeCommand(app, invocation);
  AddAbortCommand(app, invocation);
  AddConvertCommand(app, invocation);
  AddCertsCommand(app, invocation);
  app.require_subcommand(1);
  app.set_version_flag("--version", absl::StrCat("refit ", SoftwareVersion()));
  app.footer(absl::StrCat(kExamples, kExitCodeHelp));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return Usage(app, error);
  }
  const absl::Status status = WithStdoutWritten(invocation.run());
  if (!status.ok()) PrintError(invocation.name, status, FromEnvironment(app, status));
  return invocation.exit_code(status);
}

}  // namespace
}  // namespace refit::cli

int main(int argc, char** argv) {
  refit::TuneForBulkData();
  refit::KeepGrpcLogFromBlocking();
  try {
    return refit::cli::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "refit: %s\n", error.what());
    return refit::cli::kExitFailed;
  }
}

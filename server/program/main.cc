// The refit-server program.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/net/channel.h"
#include "common/net/grpc_log.h"
#include "common/process/line_writer.h"
#include "common/terminal/help_formatter.h"
#include "refit/relay.h"
#include "refit/server.h"
#include "refit/tuning.h"
#include "refit/version.h"
#include "server/process/descriptor_limit.h"
#include "server/process/self_check.h"
#include "server/settings.h"

namespace refit {
namespace {

struct Flags {
  ServerOptions server;
  LogOptions log{.format = LogFormat::kText, .level = LogLevel::kInfo};
  double grace_seconds = 10;
  double self_check_seconds = 4;
  std::string port_file;
};

void AddSetting(CLI::App& app, const Setting& setting) {
  const auto set = [setting](const std::string& text) {
    const absl::Status status = setting.set(text);
    if (!status.ok()) throw CLI::ValidationError(setting.flag, std::string(status.message()));
  };
  if (setting.is_switch()) {
    const std::string meaning = setting.is_negative() ? "false" : "true";
    app.add_flag_callback(
        setting.flag, [set, meaning] { set(meaning); }, setting.help);
  } else {
    CLI::Option* option = app.add_option_function<std::string>(setting.flag, set, setting.help);
    option->option_text(setting.value);
    if (setting.is_list) option->join(',');
  }
}

// Options of the program that are not settings of the service.
void AddProgramOptions(CLI::App& app, Flags& flags) {
  // `value` is the placeholder for the value in --help. Descriptions contain the defaults.
  const auto option = [&app](const char* name, auto& variable, const char* value, const char* description) {
    return app.add_option(name, variable, description)->option_text(value);
  };
  option("--port-file", flags.port_file, "FILE", "Write the (first) port that is listened on to this file");
  option("--grace", flags.grace_seconds, "SECONDS", "On SIGTERM, time for calls under way to end [10]")
      ->check(CLI::NonNegativeNumber);
  option("--self-check", flags.self_check_seconds, "SECONDS",
         "End, for a supervisor to restart it, once it has accepted no connection for so long. 0: never [4]")
      ->check(CLI::NonNegativeNumber);
}

// Blocks the signals that end the program, in all threads made from here on, so that Wait can receive them.
sigset_t BlockEndSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

constexpr int kUnreachable = 3;

// Ends the program at once: a server that no longer accepts connections may not be able to end normally.
void EndUnreachable(const EventLog& log, const absl::Status& status) {
  log.Error("unreachable, ending so that a supervisor restarts it", {{"reason", std::string(status.message())}});
  log.Close();
  std::_Exit(kUnreachable);
}

// A LineWriter writes the reason, because stderr may be a full pipe.
int CannotStart(absl::string_view reason) {
  LineWriter(STDERR_FILENO, nullptr).Write(absl::StrCat("refit-server: ", reason));
  return 1;
}

// One for each address: nobody else notices if one of them is dead.
absl::StatusOr<std::vector<std::unique_ptr<SelfCheck>>> StartSelfChecks(const Flags& flags, const RefitServer& server) {
  std::vector<std::unique_ptr<SelfCheck>> checks;
  if (flags.self_check_seconds == 0) return checks;
  for (const std::string& address : server.addresses()) {
    const SelfCheckOptions options{
        .address = address, .tls = flags.server.security.tls(), .patience = Milliseconds(flags.self_check_seconds)};
    auto started = SelfCheck::Start(
        options, [log = flags.server.log](const absl::Status& status) { EndUnreachable(log, status); });
    if (!started.ok()) return started.status();
    checks.push_back(*std::move(started));
  }
  return checks;
}

int Serve(Flags& flags) {
  const sigset_t signals = BlockEndSignals();
  flags.server.log = flags.log.Make();
  TakeGrpcLog([log = flags.server.log](const std::string& message) { log.Warning(message); });
  RaiseDescriptorLimit();
  absl::StatusOr<std::unique_ptr<RefitServer>> server = StartServer(flags.server);
  if (!server.ok()) {
    return CannotStart(server.status().message());
  }
  if (!flags.port_file.empty()) {
    std::ofstream file(flags.port_file);
    file << (*server)->port() << std::endl;
    if (!file) {
      return CannotStart(absl::StrCat("cannot write the port to '", flags.port_file, "'"));
    }
  }
  auto self_checks = StartSelfChecks(flags, **server);
  if (!self_checks.ok()) return CannotStart(self_checks.status().message());
  int signal = 0;
  sigwait(&signals, &signal);
  self_checks->clear();
  flags.server.log.Info("shutting down", {{"signal", signal == SIGTERM ? "SIGTERM" : "SIGINT"}});
  (*server)->Shutdown(Milliseconds(flags.grace_seconds));
  flags.server.log.Info("stopped");
  return 0;
}

int Main(int argc, char** argv) {
  TuneForBulkData();
  std::signal(SIGXFSZ, SIG_IGN);  // a write beyond the file size limit then returns an error
  std::signal(SIGPIPE, SIG_IGN);  // a write to a closed pipe then returns EPIPE
  CLI::App app(
      "Takes a trainer's native tensors, converts them to Hugging Face tensors as they arrive, and streams them to "
      "inference workers. A version becomes visible to workers whole, or not at all.");
  app.name("refit-server");
  app.formatter(std::make_shared<HelpFormatter>());
  app.footer(
      "Trainers push with `refit push` or the Publisher library, workers pull with `refit pull` or the Subscriber "
      "library, people look with `refit status` or grpcurl (server reflection is on).\n"
      "SIGTERM and SIGINT end it gracefully. Exit codes: 0 stopped by a signal, 1 could not start, 2 bad usage, "
      "3 it stopped accepting connections (see --self-check): restart it.");
  app.set_version_flag("--version", std::string("refit-server ") + SoftwareVersion());
  Flags flags;
  for (const Setting& setting : SettingsOf(flags.server, flags.log)) AddSetting(app, setting);
  AddProgramOptions(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const int code = Serve(flags);
  flags.server.log.Close();  // gRPC's log keeps a copy, which is never destroyed
  return code;
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) { return refit::Main(argc, argv); }

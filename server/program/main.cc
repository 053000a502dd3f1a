// The refit-server program.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/net/channel.h"
#include "common/net/grpc_log.h"
#include "common/net/repeated_messages.h"
#include "common/process/line_writer.h"
#include "common/process/standard_descriptors.h"
#include "common/terminal/help_formatter.h"
#include "common/terminal/package_options.h"
#include "common/terminal/trim_variables.h"
#include "refit/relay.h"
#include "refit/server.h"
#include "refit/tuning.h"
#include "refit/version.h"
#include "server/process/descriptor_limit.h"
#include "server/process/self_check.h"
#include "server/program/end_request.h"
#include "server/program/setting_sources.h"
#include "server/settings.h"

namespace refit {
namespace {

struct Flags {
  ServerOptions server;
  LogOptions log{.format = LogFormat::kText, .level = LogLevel::kInfo};
  std::chrono::milliseconds grace{10'000};
  std::chrono::milliseconds self_check{4'000};
  std::string port_file;
};

// Settings of the program, besides those of the service.
std::vector<Setting> ProgramSettings(Flags& flags) {
  constexpr double kLongest = 1e9;
  return {
      {"--port-file", "port_file", "FILE", "Write the (first) port that is listened on to this file",
       Text(flags.port_file)},
      {"--grace", "grace", "SECONDS", "On SIGTERM, time for calls under way to end [10]",
       Seconds(flags.grace, 0, kLongest)},
      {"--self-check", "self_check", "SECONDS",
       "End, for a supervisor to restart it, once it has accepted no connection for so long. 0: never [4]",
       Seconds(flags.self_check, 0, kLongest)},
  };
}

std::vector<Setting> AllSettings(Flags& flags) {
  std::vector<Setting> settings = SettingsOf(flags.server, flags.log);
  for (Setting& setting : ProgramSettings(flags)) settings.push_back(std::move(setting));
  return settings;
}

constexpr int kCannotStart = 1;
constexpr int kBadUsage = 2;
constexpr int kUnreachable = 3;

// Ends the program at once: a server that no longer accepts connections may not be able to end normally.
void EndUnreachable(const EventLog& log, const absl::Status& status) {
  log.Error("unreachable, ending so that a supervisor restarts it", {{"reason", std::string(status.message())}});
  log.Close();
  std::_Exit(kUnreachable);
}

// A LineWriter writes the reason, because stderr may be a full pipe.
int CannotStart(absl::string_view reason, int code = kCannotStart) {
  LineWriter(STDERR_FILENO, nullptr).Write(absl::StrCat("refit-server: ", reason));
  return code;
}

int Print(const std::string& text) {
  const bool is_written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  return is_written ? 0 : CannotStart("cannot write to stdout");
}

// One for each address: nobody else notices if one of them is dead.
absl::StatusOr<std::vector<std::unique_ptr<SelfCheck>>> StartSelfChecks(const Flags& flags, const RefitServer& server) {
  std::vector<std::unique_ptr<SelfCheck>> checks;
  if (flags.self_check.count() == 0) return checks;
  for (const std::string& address : server.addresses()) {
    const SelfCheckOptions options{
        .address = address, .tls = flags.server.security.tls(), .patience = flags.self_check};
    auto started = SelfCheck::Start(
        options, [log = flags.server.log](const absl::Status& status) { EndUnreachable(log, status); });
    if (!started.ok()) return started.status();
    checks.push_back(*std::move(started));
  }
  return checks;
}

// gRPC's messages as warnings: all of them if the user wants them, otherwise each kind once in a while.
std::function<void(std::string)> WriteTo(const EventLog& log) {
  if (GrpcLogIsWanted()) return [log](const std::string& message) { log.Warning(message); };
  return [log, messages = std::make_shared<RepeatedMessages>()](const std::string& message) {
    if (const std::optional<std::string> passed = messages->Pass(message)) log.Warning(*passed);
  };
}

int Serve(Flags& flags) {
  flags.server.log = flags.log.Make();
  EndRequest end_request(flags.server.log);
  TakeGrpcLog(WriteTo(flags.server.log));
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
  const int signal = end_request.Await();
  self_checks->clear();
  flags.server.log.Info("shutting down", {{"signal", SignalName(signal)}});
  (*server)->Shutdown(flags.grace);
  flags.server.log.Info("stopped");
  return 0;
}

int Main(int argc, char** argv) {
  ReserveStandardDescriptors();
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
      "Every flag may also be a key in a file (--config) or a variable: REFIT_SERVER_PUSH_IDLE_TIMEOUT=60 for "
      "--push-idle-timeout 60, REFIT_SERVER_NO_DELTAS=true for --no-deltas. A flag wins over its variable, that over "
      "the "
      "file.\n"
      "SIGTERM and SIGINT end it gracefully. Exit codes: 0 stopped by a signal, 1 could not start, 2 bad usage, "
      "3 it stopped accepting connections (see --self-check): restart it.");
  app.set_version_flag("--version", std::string("refit-server ") + SoftwareVersion());
  Flags flags;
  SettingSources sources(AllSettings(flags));
  sources.AddFlags(app);
  std::string config;
  app.add_option("--config", config,
                 "Settings from a file (TOML): each flag's name without its dashes is a key. Flags and the environment "
                 "win over it [REFIT_SERVER_CONFIG]")
      ->envname("REFIT_SERVER_CONFIG")
      ->option_text("FILE");
  bool print_config = false;
  app.add_flag("--print-config", print_config, "Print the settings and where each comes from, as such a file, and end");
  AddPackageOptions(app, absl::StrCat("refit-server ", SoftwareVersion()));
  TrimVariables(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kBadUsage;
  }
  if (absl::Status status = sources.Apply(config); !status.ok()) return CannotStart(status.message(), kBadUsage);
  if (print_config) return Print(sources.AsFile());
  const int code = Serve(flags);
  flags.server.log.Close();  // gRPC's log keeps a copy, which is never destroyed
  return code;
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) { return refit::Main(argc, argv); }

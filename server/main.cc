// refit-server: the service as a program.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <string>

#include "common/net/channel.h"
#include "common/net/version_info.h"
#include "server/refit_server.h"

namespace refit {
namespace {

struct Flags {
  ServerOptions server;
  LogFormat log_format = LogFormat::kText;
  LogLevel log_level = LogLevel::kInfo;
  double push_idle_seconds = 60;
  double grace_seconds = 10;
  std::string port_file;
};

void AddOptions(CLI::App& app, Flags& flags) {
  StoreOptions& store = flags.server.store;
  Limits& limits = flags.server.limits;
  app.add_option("--listen", flags.server.listen, "Address to serve on: HOST:PORT (port 0: any free one) or unix:/path")
      ->capture_default_str();
  app.add_flag("--allow-plaintext", flags.server.allow_plaintext,
               "Listen beyond loopback although nothing is encrypted and nobody is authenticated");
  app.add_option("--port-file", flags.port_file, "Write the port that is listened on to this file");
  app.add_option("--memory", store.memory_budget_bytes, "Memory for the tensors of all versions, such as 16GiB [8GiB]")
      ->transform(CLI::AsSizeValue(false))
      ->type_name("SIZE");
  app.add_option("--retain", store.retain_versions,
                 "Committed versions to keep for each model; older ones go earlier if the memory is needed")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--chunk-bytes", store.chunk_bytes, "Payload of one message, such as 2MiB; a multiple of 64 [2MiB]")
      ->transform(CLI::AsSizeValue(false))
      ->type_name("SIZE");
  app.add_option("--max-message-bytes", limits.max_message_bytes, "Largest message sent or accepted [4MiB]")
      ->transform(CLI::AsSizeValue(false))
      ->type_name("SIZE");
  app.add_option("--max-tensors", limits.max_tensors_per_version, "Most native tensors in one version")
      ->capture_default_str();
  app.add_option("--max-name-bytes", limits.max_name_bytes, "Longest tensor name")->capture_default_str();
  app.add_option("--max-pulls", limits.max_pulls, "Most pulls served at a time")->capture_default_str();
  app.add_option("--max-pushes", limits.max_pushes, "Most push streams open at a time")->capture_default_str();
  app.add_option("--push-idle-timeout", flags.push_idle_seconds,
                 "Abort a version whose trainer sends nothing for so long, in seconds")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--convert-threads", flags.server.convert_threads, "Threads that convert; 0: one for each two cores")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_option("--grace", flags.grace_seconds, "On SIGTERM, time for calls under way to end, in seconds")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--log-format", flags.log_format, "Logs on stderr: text (key=value) or json, one event a line [text]")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, LogFormat>{{"text", LogFormat::kText}, {"json", LogFormat::kJson}}));
  app.add_option("--log-level", flags.log_level, "Least level that is logged: debug, info, warning or error [info]")
      ->transform(CLI::CheckedTransformer(std::map<std::string, LogLevel>{{"debug", LogLevel::kDebug},
                                                                          {"info", LogLevel::kInfo},
                                                                          {"warning", LogLevel::kWarning},
                                                                          {"error", LogLevel::kError}}));
}

// Blocks the signals that end the program, in all threads made from here on, so that Wait can take them.
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

int Serve(Flags& flags) {
  const sigset_t signals = BlockEndSignals();
  flags.server.log = EventLog(flags.log_format, flags.log_level);
  flags.server.limits.push_idle_timeout = Milliseconds(flags.push_idle_seconds);
  absl::StatusOr<std::unique_ptr<RefitServer>> server = RefitServer::Start(flags.server);
  if (!server.ok()) {
    std::cerr << "refit-server: " << server.status().message() << "\n";
    return 1;
  }
  if (!flags.port_file.empty()) {
    std::ofstream file(flags.port_file);
    file << (*server)->port() << std::endl;
    if (!file) {
      std::cerr << "refit-server: cannot write the port to '" << flags.port_file << "'\n";
      return 1;
    }
  }
  int signal = 0;
  sigwait(&signals, &signal);
  flags.server.log.Info("shutting down", {{"signal", signal == SIGTERM ? "SIGTERM" : "SIGINT"}});
  (*server)->Shutdown(Milliseconds(flags.grace_seconds));
  flags.server.log.Info("stopped");
  return 0;
}

int Main(int argc, char** argv) {
  TuneAllocatorForBulkData();
  CLI::App app(
      "Takes a trainer's native tensors, converts them to Hugging Face tensors as they arrive, and streams them to\n"
      "inference workers. A version becomes visible to workers whole, or not at all.");
  app.name("refit-server");
  app.footer(
      "Trainers push with `refit push` or the Publisher library, workers pull with `refit pull` or the Subscriber\n"
      "library, people look with `refit status` or grpcurl (server reflection is on).\n"
      "SIGTERM and SIGINT end it gracefully. Exit codes: 0 stopped by a signal, 1 could not start, 2 bad usage.");
  app.set_version_flag("--version", std::string("refit-server ") + SoftwareVersion());
  Flags flags;
  AddOptions(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return Serve(flags);
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) { return refit::Main(argc, argv); }

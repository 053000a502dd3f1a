// refit-server: the service as a program.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/net/channel.h"
#include "common/net/grpc_log.h"
#include "common/net/version_info.h"
#include "common/process/line_writer.h"
#include "server/descriptor_limit.h"
#include "server/refit_server.h"
#include "server/self_check.h"

namespace refit {
namespace {

struct Flags {
  ServerOptions server;
  LogFormat log_format = LogFormat::kText;
  LogLevel log_level = LogLevel::kInfo;
  double peer_seconds = 10;
  double push_idle_seconds = 60;
  double rank_join_seconds = 60;
  double worker_seconds = 60;
  double grace_seconds = 10;
  double self_check_seconds = 4;
  std::string port_file;
};

void AddOptions(CLI::App& app, Flags& flags) {
  StoreOptions& store = flags.server.store;
  Limits& limits = flags.server.limits;
  // `value` is what --help shows for the value; defaults stand in the descriptions.
  const auto option = [&app](const char* name, auto& variable, const char* value, const char* description) {
    return app.add_option(name, variable, description)->option_text(value);
  };
  const CLI::AsSizeValue size(/*kb_is_1000=*/false);
  option("--listen", flags.server.listen, "ADDR",
         "Address to serve on: HOST:PORT (port 0: any free one) or unix:/path [127.0.0.1:50051]");
  app.add_flag("--allow-plaintext", flags.server.allow_plaintext,
               "Listen beyond loopback although nothing is encrypted and nobody is authenticated");
  option("--metrics", flags.server.metrics, "ADDR",
         "Serve metrics for Prometheus at http://ADDR/metrics, such as 127.0.0.1:9464 (port 0: any free one, see the\n"
         "logs). Plain HTTP: loopback, unless --allow-plaintext [none]");
  option("--tls-cert", flags.server.security.certificate, "FILE",
         "Serve over TLS with this certificate (PEM, with what leads up to the authority); read again when it changes");
  option("--tls-key", flags.server.security.key, "FILE", "Its key, without a passphrase; closed to others (chmod 600)");
  option("--tls-client-ca", flags.server.security.client_ca, "FILE",
         "Mutual TLS: only clients with a certificate that this authority has signed may connect");
  option("--roles", flags.server.authorization.roles, "FILE",
         "Who may do what, by the names in clients' certificates: a line each, 'trainer|worker|viewer NAME'.\n"
         "Trainers push and abort, workers pull, viewers look; each may do what those behind it may.\n"
         "Without --roles and --tokens everyone who can connect may do everything");
  option(
      "--tokens", flags.server.authorization.tokens, "FILE",
      "Who may do what, by the bearer token of a call: a line each, 'trainer|worker|viewer TOKEN', the token at least\n"
      "16 characters; closed to others (chmod 600), read again when it changes");
  option("--port-file", flags.port_file, "FILE", "Write the port that is listened on to this file");
  option("--memory", store.memory_budget_bytes, "SIZE", "Memory for the tensors of all versions, such as 16GiB [8GiB]")
      ->transform(size);
  option("--retain", store.retain_versions, "N",
         "Committed versions to keep for each model; older ones go earlier if the memory is needed. 0: keep nothing,\n"
         "stream each tensor through to the workers that pull while the trainer pushes, so that a version may be\n"
         "larger than the memory [2]")
      ->check(CLI::Range(0, 1000));
  option(
      "--spool", flags.server.spool, "DIR",
      "Keep committed versions in this folder too, and serve them again after a restart. Written in the background:\n"
      "`refit versions` says which are there. Made if it does not exist; nobody else may write to it [none]");
  option("--stream-to", store.stream_to, "N",
         "With --retain 0: keep each tensor until N workers have it, and all that pull [1]")
      ->check(CLI::Range(1, 100000));
  option("--worker-timeout", flags.worker_seconds, "SECONDS",
         "With --retain 0: abort a version whose trainer waits for workers that take nothing for so long [60]")
      ->check(CLI::PositiveNumber);
  option("--chunk-bytes", store.chunk_bytes, "SIZE", "Payload of one message; a multiple of 64 [2MiB]")
      ->transform(size);
  option("--max-message-bytes", limits.max_message_bytes, "SIZE", "Largest message sent or accepted [4MiB]")
      ->transform(size);
  option("--max-tensors", limits.max_tensors_per_version, "N", "Most native tensors in one version [1000000]");
  option("--max-models", store.max_models, "N", "Most models [64]")->check(CLI::PositiveNumber);
  option("--max-open-versions", store.max_open_versions, "N", "Most versions pushed at a time, of all models [64]")
      ->check(CLI::PositiveNumber);
  option("--max-ranks", limits.max_ranks, "N", "Most ranks that push a version together [1024]")
      ->check(CLI::PositiveNumber);
  option("--max-dimensions", limits.max_dimensions, "N", "Most dimensions of a tensor [16]")
      ->check(CLI::Range(static_cast<size_t>(1), kMaxRank));
  option("--max-regex-bytes", limits.max_regex_bytes, "N", "Longest regular expression in a request [4096]")
      ->check(CLI::Range(static_cast<size_t>(1), PythonRegex::kMaxPatternBytes));
  option("--max-rules", limits.max_rules, "N", "Most layout rules in a request [1024]");
  option("--max-streams-per-peer", limits.max_streams_per_peer, "N",
         "Most streams (pushes, pulls, watches, manifests) that one host has open, or that Unix sockets have [4096]")
      ->check(CLI::PositiveNumber);
  option("--max-workers", limits.max_workers, "N", "Most workers that pull or watch at a time [4000]")
      ->check(CLI::Range(1U, WorkerRegistry::kMaxWorkers));
  option("--max-name-bytes", limits.max_name_bytes, "N", "Longest tensor name [1024]");
  option("--max-pulls", limits.max_pulls, "N", "Most pulls served at a time [1024]");
  option("--max-pushes", limits.max_pushes, "N", "Most push streams open at a time [256]");
  app.add_flag("!--no-shared-memory", store.shared_memory,
               "Exchange bytes over connections only, also with trainers and workers on this host");
  app.add_flag("--prefault", store.prefault,
               "Once a version is committed, get memory for the next one from the system while nothing is pushed: the\n"
               "second version (with --retain 2 the third as well) is then as fast as later ones. Not with --retain 0");
  option("--push-window", limits.push_window_bytes, "SIZE",
         "Bytes that the ranks of a version may send ahead of the conversion, all together [64MiB]")
      ->transform(size);
  option("--peer-timeout", flags.peer_seconds, "SECONDS",
         "Drop a trainer or worker that does not answer for so long (it hangs, or its network is gone) [10]")
      ->check(CLI::Range(1.0, 3600.0));
  option("--push-idle-timeout", flags.push_idle_seconds, "SECONDS",
         "Abort a version whose trainer sends nothing for so long [60]")
      ->check(CLI::PositiveNumber);
  option("--rank-timeout", flags.rank_join_seconds, "SECONDS",
         "Abort a sharded version some of whose ranks have not come for so long [60]")
      ->check(CLI::PositiveNumber);
  option("--pack-memory", limits.packed_bytes, "SIZE",
         "Memory, besides --memory, for parts of tensors that workers ask for and that must be packed [256MiB]")
      ->transform(size);
  option("--convert-threads", flags.server.convert_threads, "N",
         "Threads that convert, one for each stream that is pushed at the time; 0: one for each two cores [0]")
      ->check(CLI::Range(0, 1024));
  option("--grace", flags.grace_seconds, "SECONDS", "On SIGTERM, time for calls under way to end [10]")
      ->check(CLI::NonNegativeNumber);
  option("--self-check", flags.self_check_seconds, "SECONDS",
         "End, for a supervisor to restart it, once it has accepted no connection for so long. 0: never [4]")
      ->check(CLI::NonNegativeNumber);
  option("--log-format", flags.log_format, "text|json", "Logs on stderr, one event a line: key=value, or JSON [text]")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, LogFormat>{{"text", LogFormat::kText}, {"json", LogFormat::kJson}}));
  option("--log-level", flags.log_level, "LEVEL", "Least level that is logged: debug, info, warning or error [info]")
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

constexpr int kUnreachable = 3;
// Fewer descriptors than this do not serve a fleet.
constexpr uint64_t kManyDescriptors = 4096;

void CheckDescriptors(const EventLog& log) {
  const uint64_t limit = RaiseDescriptorLimit();
  if (limit >= kManyDescriptors) return;
  log.Warning("few file descriptors: each connection takes one; raise `ulimit -n` or LimitNOFILE",
              {{"limit", std::to_string(limit)}});
}

// Ends the program at once: what no longer accepts is not to be trusted with an orderly end.
void EndUnreachable(const EventLog& log, const absl::Status& status) {
  log.Error("unreachable, ending so that a supervisor restarts it", {{"reason", std::string(status.message())}});
  log.Close();
  std::_Exit(kUnreachable);
}

// Also where nobody reads what was logged before.
int CannotStart(absl::string_view reason) {
  LineWriter(STDERR_FILENO, nullptr).Write(absl::StrCat("refit-server: ", reason));
  return 1;
}

int Serve(Flags& flags) {
  const sigset_t signals = BlockEndSignals();
  flags.server.log = EventLog(flags.log_format, flags.log_level);
  TakeGrpcLog([log = flags.server.log](const std::string& message) { log.Warning(message); });
  CheckDescriptors(flags.server.log);
  flags.server.limits.peer_timeout = Milliseconds(flags.peer_seconds);
  flags.server.limits.push_idle_timeout = Milliseconds(flags.push_idle_seconds);
  flags.server.limits.worker_timeout = Milliseconds(flags.worker_seconds);
  flags.server.limits.rank_join_timeout = Milliseconds(flags.rank_join_seconds);
  absl::StatusOr<std::unique_ptr<RefitServer>> server = RefitServer::Start(flags.server);
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
  std::unique_ptr<SelfCheck> self_check;
  if (flags.self_check_seconds > 0) {
    const SelfCheckOptions options{.address = (*server)->address(),
                                   .tls = flags.server.security.tls(),
                                   .patience = Milliseconds(flags.self_check_seconds)};
    auto started =
        SelfCheck::Start(options, [&](const absl::Status& status) { EndUnreachable(flags.server.log, status); });
    if (!started.ok()) {
      return CannotStart(started.status().message());
    }
    self_check = *std::move(started);
  }
  int signal = 0;
  sigwait(&signals, &signal);
  self_check.reset();
  flags.server.log.Info("shutting down", {{"signal", signal == SIGTERM ? "SIGTERM" : "SIGINT"}});
  (*server)->Shutdown(Milliseconds(flags.grace_seconds));
  flags.server.log.Info("stopped");
  return 0;
}

int Main(int argc, char** argv) {
  TuneForBulkData();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may grow no further is an error to report, no reason to die
  std::signal(SIGPIPE, SIG_IGN);  // nor is a reader that went away
  CLI::App app(
      "Takes a trainer's native tensors, converts them to Hugging Face tensors as they arrive, and streams them to\n"
      "inference workers. A version becomes visible to workers whole, or not at all.");
  app.name("refit-server");
  app.footer(
      "Trainers push with `refit push` or the Publisher library, workers pull with `refit pull` or the Subscriber\n"
      "library, people look with `refit status` or grpcurl (server reflection is on).\n"
      "SIGTERM and SIGINT end it gracefully. Exit codes: 0 stopped by a signal, 1 could not start, 2 bad usage,\n"
      "3 it stopped accepting connections (see --self-check): restart it.");
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

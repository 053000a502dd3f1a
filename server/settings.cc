#include "server/settings.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace refit {
namespace {

std::string ArgumentOf(const std::string& flag) {
  const absl::string_view name = absl::string_view(flag).substr(2);
  return absl::StrReplaceAll(absl::StartsWith(name, "no-") ? name.substr(3) : name, {{"-", "_"}});
}

struct Table {
  std::vector<Setting> settings;

  void Add(const std::string& flag, const std::string& value, const std::string& help, SetValue set,
           const std::string& argument = "") {
    settings.push_back({flag, argument.empty() ? ArgumentOf(flag) : argument, value, help, std::move(set)});
  }

  void AddList(const std::string& flag, const std::string& value, const std::string& help, SetValue set) {
    Add(flag, value, help, std::move(set));
    settings.back().is_list = true;
  }
};

void AddDoors(ServerOptions& options, Table& table) {
  table.AddList("--listen", "ADDR",
                "Address to serve on: HOST:PORT (port 0: any free one) or unix:/path. May be given several times, or\n"
                "with commas [127.0.0.1:50051]",
                Text(options.listen));
  table.Add(
      "--zone", "NAME",
      "Where this service is: a rack, a zone, a host. Workers and relays of the same zone prefer it; `refit status`\n"
      "shows it [none]",
      Text(options.zone));
  table.Add("--socket-mode", "MODE",
            "Permissions of Unix sockets, octal: 660 lets their group in, 666 everyone [what the umask leaves]",
            Mode(options.socket_mode));
  table.Add("--allow-plaintext", "", "Listen beyond loopback although nothing is encrypted and nobody is authenticated",
            Switch(options.allow_plaintext));
  table.Add(
      "--health", "ADDR",
      "Answer grpc.health.v1 at this address too, HOST:PORT or unix:/path, in plain text even if --listen wants TLS:\n"
      "Kubernetes' gRPC probe knows none. It tells whether the service serves, and nothing else [none]",
      Text(options.health));
  table.Add(
      "--metrics", "ADDR",
      "Serve metrics for Prometheus at http://ADDR/metrics, such as 127.0.0.1:9464 (port 0: any free one, see the\n"
      "logs). Plain HTTP: loopback, unless --allow-plaintext [none]",
      Text(options.metrics));
  table.Add(
      "--tls-cert", "FILE",
      "Serve over TLS with this certificate (PEM, with what leads up to the authority); read again when it changes",
      Text(options.security.certificate), "certificate");
  table.Add("--tls-key", "FILE", "Its key, without a passphrase; closed to others (chmod 600)",
            Text(options.security.key), "key");
  table.Add("--tls-client-ca", "FILE",
            "Mutual TLS: only clients with a certificate that this authority has signed may connect",
            Text(options.security.client_ca), "client_ca");
  table.Add(
      "--roles", "FILE",
      "Who may do what, by the names in clients' certificates: a line each, 'trainer|relay|worker|viewer NAME'.\n"
      "Trainers push and abort, relays report for others, workers pull, viewers look; each may do what those behind\n"
      "it may. "
      "Without --roles and --tokens everyone who can connect may do everything",
      Text(options.authorization.roles));
  table.Add(
      "--tokens", "FILE",
      "Who may do what, by the bearer token of a call: a line each, 'trainer|relay|worker|viewer TOKEN', the token at\n"
      "least 16 characters; closed to others (chmod 600), read again when it changes",
      Text(options.authorization.tokens));
}

void AddRelay(ServerOptions& options, Table& table) {
  table.AddList(
      "--upstream", "ADDR",
      "Be a relay: serve the versions of the service there, each while it is pushed. Workers below count in the fleet\n"
      "of the root. May be given several times, or with commas: of several services with the same versions, those of\n"
      "this --zone come first; the next is taken when one is down or too busy [none]",
      Text(options.upstream.address));
  table.Add("--name", "NAME", "Name of this service in the fleets of those above, for people [host/process]",
            Text(options.name));
  table.Add("--upstream-tls-ca", "FILE", "TLS to the service above: the authority that signed its certificate",
            Text(options.upstream.security.ca));
  table.Add("--upstream-tls-cert", "FILE", "Mutual TLS: this relay's certificate there; it needs the role 'relay'",
            Text(options.upstream.security.certificate));
  table.Add("--upstream-tls-key", "FILE", "Its key; closed to others (chmod 600)", Text(options.upstream.security.key));
  table.Add("--upstream-tls-server-name", "NAME", "The name in that service's certificate [the address's host]",
            Text(options.upstream.security.server_name));
  table.Add("--upstream-token-file", "FILE",
            "A file with the bearer token for the service above; with the role 'relay'",
            Text(options.upstream.security.token_file));
  table.Add(
      "--upstream-transport", "auto|tcp|shared-memory",
      "How bytes come from a service on this host: through its memory, or over the connection [auto]",
      OneOf(options.upstream.transport,
            {{"auto", Transport::kAuto}, {"tcp", Transport::kWire}, {"shared-memory", Transport::kSharedMemory}}));
  table.Add("--upstream-streams", "N|auto",
            "Pull each version over so many connections, for links on which one connection is slower than the link;\n"
            "workers below then get whole tensors as they come, not chunks. auto: as many as pay [1]",
            Streams(options.upstream_streams));
}

void AddVersions(ServerOptions& options, Table& table) {
  table.Add(
      "--memory", "SIZE",
      "Memory for the tensors of all versions, such as 16GiB [8GiB, or half of what the process may use if that is\n"
      "less: the machine's memory, its container's or control group's limit, ulimit -v]",
      Size(options.store.memory_budget_bytes));
  table.Add(
      "--retain", "N",
      "Committed versions to keep for each model; older ones go earlier if the memory is needed. 0: keep nothing,\n"
      "stream each tensor through to the workers that pull while the trainer pushes, so that a version may be\n"
      "larger than the memory [2]",
      Count(options.store.retain_versions, 0, 1000));
  table.Add(
      "--spool", "DIR",
      "Keep committed versions in this folder too, and serve them again after a restart. Written in the background:\n"
      "`refit versions` says which are there. Made if it does not exist; nobody else may write to it [none]",
      Text(options.spool));
  table.Add(
      "--trust-spool", "",
      "Take the --spool folder although it belongs to another user or others may write to it, as on shares (CIFS,\n"
      "Azure Files) where everything is 0777: whoever may write there decides what is served",
      Switch(options.trust_spool));
  table.Add("--stream-to", "N", "With --retain 0: keep each tensor until N workers have it, and all that pull [1]",
            Count(options.store.stream_to, 1, 100'000));
  table.Add("--prefault", "",
            "Once a version is committed, get memory for the next one from the system while nothing is pushed: the\n"
            "second version (with --retain 2 the third as well) is then as fast as later ones. Not with --retain 0",
            Switch(options.store.prefault));
  table.Add("--no-shared-memory", "",
            "Exchange bytes over connections only, also with trainers and workers on this host",
            Switch(options.store.shared_memory));
  table.Add("--pack-memory", "SIZE",
            "Memory, besides --memory, for parts of tensors that workers ask for and that must be packed [256MiB]",
            Size(options.limits.packed_bytes));
  table.Add("--delta-memory", "SIZE",
            "Memory, besides --memory, for what has changed between versions, encoded once for all workers [256MiB]",
            Size(options.limits.delta_bytes));
  table.Add("--delta-history", "SIZE",
            "More of it, for deltas of versions that are no longer kept, so that workers which are several versions\n"
            "behind need not get whole tensors [0]",
            Size(options.limits.delta_history_bytes));
  table.Add("--no-deltas", "", "Send whole tensors also to workers that hold an earlier version",
            Switch(options.deltas));
  table.Add(
      "--adapter-file", "FILES",
      "Model families of your own, as TOML files, separated by commas; trainers name them as their adapter [none]",
      Text(options.adapter_files), "adapter_files");
  table.Add("--convert-threads", "N",
            "Threads that convert, one for each stream that is pushed at the time; 0: one for each two CPUs that the "
            "process\n"
            "may use (affinity, and the CPU quota of its container or control group) [0]",
            Count(options.convert_threads, 0, 1024));
}

void AddPatience(ServerOptions& options, Table& table) {
  table.Add("--peer-timeout", "SECONDS",
            "Drop a trainer or worker that does not answer for so long (it hangs, or its network is gone) [10]",
            Seconds(options.limits.peer_timeout, 1, 3600));
  table.Add(
      "--push-idle-timeout", "SECONDS",
      "Abort a version whose trainer answers, but sends nothing for so long. Optimizer steps and checkpoints pause\n"
      "a push for minutes; the default is longer than NCCL's own timeout of 10 minutes [900]",
      Seconds(options.limits.push_idle_timeout));
  table.Add("--rank-timeout", "SECONDS",
            "Abort a sharded version some of whose ranks have not come for so long, since the first one came [300]",
            Seconds(options.limits.rank_join_timeout));
  table.Add("--worker-timeout", "SECONDS",
            "With --retain 0: abort a version whose trainer waits for workers that take nothing for so long [60]",
            Seconds(options.limits.worker_timeout));
}

void AddLimits(ServerOptions& options, Table& table) {
  table.Add("--chunk-bytes", "SIZE", "Payload of one message; a multiple of 64 [2MiB]",
            Size(options.store.chunk_bytes));
  table.Add("--max-message-bytes", "SIZE", "Largest message sent or accepted [4MiB]",
            Size(options.limits.max_message_bytes));
  table.Add("--push-window", "SIZE",
            "Bytes that the ranks of a version may send ahead of the conversion, all together [64MiB]",
            Size(options.limits.push_window_bytes));
  table.Add("--max-tensors", "N", "Most native tensors in one version [1000000]",
            Count(options.limits.max_tensors_per_version));
  table.Add("--max-models", "N", "Most models [64]", Count(options.store.max_models, 1));
  table.Add("--max-open-versions", "N", "Most versions pushed at a time, of all models [64]",
            Count(options.store.max_open_versions, 1));
  table.Add("--max-ranks", "N", "Most ranks that push a version together [1024]", Count(options.limits.max_ranks, 1));
  table.Add("--max-dimensions", "N", "Most dimensions of a tensor [16]",
            Count(options.limits.max_dimensions, 1, kMaxRank));
  table.Add("--max-regex-bytes", "N", "Longest regular expression in a request [4096]",
            Count(options.limits.max_regex_bytes, 1, kMaxRegexBytes));
  table.Add("--max-rules", "N", "Most layout rules in a request [1024]", Count(options.limits.max_rules));
  table.Add("--max-streams-per-peer", "N",
            "Most streams (pushes, pulls, watches, manifests) that one host has open, or that Unix sockets have [4096]",
            Count(options.limits.max_streams_per_peer, 1));
  table.Add("--max-workers", "N", "Most workers that pull or watch at a time [4000]",
            Count(options.limits.max_workers, 1, kMaxWorkers));
  table.Add("--max-name-bytes", "N", "Longest tensor name [1024]", Count(options.limits.max_name_bytes));
  table.Add("--max-pulls", "N", "Most pulls served at a time [1024]", Count(options.limits.max_pulls));
  table.Add("--max-pushes", "N", "Most push streams open at a time [256]", Count(options.limits.max_pushes));
}

void AddLogs(LogOptions& log, Table& table) {
  table.Add("--log-format", "text|json", "Logs on stderr, one event a line: key=value, or JSON [text]",
            OneOf(log.format, {{"text", LogFormat::kText}, {"json", LogFormat::kJson}}));
  table.Add("--log-level", "LEVEL", "Least level that is logged: debug, info, warning or error [info]",
            OneOf(log.level, {{"debug", LogLevel::kDebug},
                              {"info", LogLevel::kInfo},
                              {"warning", LogLevel::kWarning},
                              {"error", LogLevel::kError}}));
}

}  // namespace

std::vector<Setting> SettingsOf(ServerOptions& options, LogOptions& log) {
  Table table;
  AddDoors(options, table);
  AddRelay(options, table);
  AddVersions(options, table);
  AddPatience(options, table);
  AddLimits(options, table);
  AddLogs(log, table);
  return std::move(table.settings);
}

std::string WithArgumentNames(absl::string_view message) {
  ServerOptions options;
  LogOptions log;
  std::vector<std::pair<std::string, std::string>> names;  // the longest that matches is replaced
  for (const Setting& setting : SettingsOf(options, log)) {
    const std::string value = !setting.is_switch() ? "" : setting.is_negative() ? "False" : "True";
    names.emplace_back(setting.flag, absl::StrCat(setting.argument, "=", value));
    for (const char digit : absl::string_view("0123456789")) {  // "--retain 0"
      if (!setting.is_switch()) {
        names.emplace_back(absl::StrCat(setting.flag, " ", absl::string_view(&digit, 1)),
                           absl::StrCat(setting.argument, "=", absl::string_view(&digit, 1)));
      }
    }
  }
  return absl::StrReplaceAll(message, names);
}

}  // namespace refit

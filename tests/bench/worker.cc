// An inference worker that keeps running: pulls whatever version it is told to, verified, into memory that it reuses.
//
// Reads version numbers from stdin, one a line. Prints "ready <transport>", then for each version "<version>
// <bytes> <seconds> <wire bytes>". A version that is not opened yet is waited for; the seconds do not count that. With
// --deltas, each version is the base of the next.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "common/net/channel.h"
#include "refit/subscriber.h"
#include "refit/tuning.h"
#include "tests/bench/security_options.h"
#include "tests/bench/transport_option.h"

namespace refit {
namespace {

constexpr std::chrono::seconds kPatience(30);
constexpr std::chrono::milliseconds kRetryInterval(2);

struct Flags {
  ChannelOptions channel;
  PullOptions pull;
  bool deltas = false;
  bool untuned = false;
};

struct TimedPull {
  PulledVersion pulled;
  double seconds = 0;
};

absl::StatusOr<TimedPull> PullOnceOpened(Subscriber& subscriber, const PullOptions& options) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (true) {
    const auto begin = std::chrono::steady_clock::now();
    absl::StatusOr<PulledVersion> pulled = subscriber.Pull(options);
    const auto end = std::chrono::steady_clock::now();
    if (pulled.ok()) return TimedPull{*std::move(pulled), std::chrono::duration<double>(end - begin).count()};
    if (!absl::IsNotFound(pulled.status()) || end > deadline) return pulled.status();
    std::this_thread::sleep_for(kRetryInterval);
  }
}

absl::Status Run(Flags& flags) {
  const absl::StatusOr<std::unique_ptr<Subscriber>> subscriber = Subscriber::Connect(flags.channel);
  if (!subscriber.ok()) return subscriber.status();
  std::cout << "ready " << TransportName(flags.channel) << std::endl;
  // A worker keeps what it serves from until the next version begins; its memory then is the next one's.
  TimedPull current;
  uint64_t version = 0;
  while (std::cin >> version) {
    flags.pull.version = version;
    flags.pull.base = flags.deltas && !current.pulled.tensors.empty() ? BaseOf(current.pulled) : nullptr;
    current = {};
    absl::StatusOr<TimedPull> pull = PullOnceOpened(**subscriber, flags.pull);
    if (!pull.ok()) return pull.status();
    current = *std::move(pull);
    const PullResult& result = current.pulled.result;
    std::cout << absl::StrFormat("%d %d %.6f %d", version, result.bytes, current.seconds, result.traffic.wire_bytes)
              << std::endl;
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app("A worker, for benchmarks: pulls the versions whose numbers it reads");
  Flags flags;
  app.add_option("--server", flags.channel.address)->required();
  app.add_option("--model", flags.pull.model)->capture_default_str();
  app.add_option("--filter", flags.pull.filter);
  app.add_flag("--deltas", flags.deltas);
  app.add_option("--streams", flags.pull.streams, "0: as many as pay");
  app.add_flag("--untuned", flags.untuned, "leave the allocator as it is");
  AddTransportOption(app, flags.channel);
  AddSecurityOptions(app, flags.channel.security);
  CLI11_PARSE(app, argc, argv);
  if (!flags.untuned) TuneForBulkData();
  const absl::Status status = Run(flags);
  if (!status.ok()) std::cerr << "bench-worker: " << status.ToString() << "\n";
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) { return refit::Main(argc, argv); }

// An inference worker without memory for two versions: it installs whatever version it is told to into the memory that
// is in use.
//
// Reads version numbers from stdin, one a line. Prints "ready <transport>", then for each version "<version> <seconds>
// <seconds of them after staging> <base, or 0>".
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "refit/buffer.h"
#include "refit/tuning.h"
#include "refit/worker.h"
#include "tests/bench/transport_option.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

double InSeconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

// The memory in use.
class Memory {
 public:
  absl::StatusOr<absl::Span<std::byte>> Place(const TensorPart& part) {
    std::shared_ptr<Buffer>& buffer = buffers_[part.tensor.name];
    if (buffer == nullptr) {
      absl::StatusOr<std::shared_ptr<Buffer>> allocated = Buffer::Allocate(part.ByteSize());
      if (!allocated.ok()) return allocated.status();
      buffer = *std::move(allocated);
    }
    return buffer->span();
  }

 private:
  std::map<std::string, std::shared_ptr<Buffer>> buffers_;
};

absl::Status Run(const ChannelOptions& channel) {
  Memory memory;
  StagedVersion last;
  WorkerOptions options;
  options.in_place = true;
  options.place = [&memory](const TensorPart& part) { return memory.Place(part); };
  options.install = [&last](StagedVersion& staged) {
    last = staged;
    return absl::OkStatus();
  };
  const absl::StatusOr<std::unique_ptr<Worker>> worker = Worker::Create(channel, std::move(options));
  if (!worker.ok()) return worker.status();
  std::cout << "ready " << TransportName(channel) << std::endl;
  uint64_t version = 0;
  while (std::cin >> version) {
    const auto begin = Clock::now();
    if (absl::Status status = (*worker)->Refit(version).status(); !status.ok()) return status;
    const std::chrono::nanoseconds all = Clock::now() - begin;
    std::cout << absl::StrFormat("%d %.6f %.6f %d", version, InSeconds(all), InSeconds(all - last.stage_time),
                                 last.traffic.base_version.value_or(0))
              << std::endl;
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  TuneForBulkData();
  CLI::App app("A worker in place, for benchmarks: installs the versions whose numbers it reads");
  ChannelOptions channel;
  app.add_option("--server", channel.address)->required();
  AddTransportOption(app, channel);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Run(channel);
  if (!status.ok()) std::cerr << "bench-in-place-worker: " << status.ToString() << "\n";
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) { return refit::Main(argc, argv); }

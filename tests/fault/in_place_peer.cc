// A worker that changes a mapped file in place; made to be killed. What it leaves in the file can be looked at.
//
//   in-place-peer ADDRESS FILE LOG SIZE... [die-at BYTE]
//
// The tensors "t0", "t1" and so on lie in the file one after another, with these sizes. With die-at it kills itself, as
// if somebody else did, at the first write to the page of this byte after a first version is in use.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/calls/stop_flag.h"
#include "client/worker/backoff.h"
#include "refit/worker.h"
#include "tests/fault/peer_log.h"

namespace refit {
namespace {

using std::chrono::milliseconds;

struct Arguments {
  std::string address;
  std::string file;
  std::string log;
  std::vector<uint64_t> sizes;
  uint64_t die_at = UINT64_MAX;
};

bool Parse(int argc, char** argv, Arguments& arguments) {
  if (argc < 5) return false;
  arguments.address = argv[1];
  arguments.file = argv[2];
  arguments.log = argv[3];
  for (int i = 4; i < argc; ++i) {
    uint64_t number = 0;
    const bool dies = std::string(argv[i]) == "die-at" && ++i < argc;
    if (!absl::SimpleAtoi(argv[i], &number)) return false;
    if (dies) {
      arguments.die_at = number;
    } else {
      arguments.sizes.push_back(number);
    }
  }
  return true;
}

absl::Span<std::byte> Map(const std::string& path, uint64_t size) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  void* const memory = fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0
                           ? mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                           : MAP_FAILED;
  if (memory == MAP_FAILED) return {};
  return {static_cast<std::byte*>(memory), size};  // for the rest of the process's life
}

void DieAtWriteTo(absl::Span<std::byte> memory, uint64_t byte) {
  std::signal(SIGSEGV, [](int) { kill(getpid(), SIGKILL); });
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  mprotect(memory.data() + byte / page * page, 1, PROT_READ);
}

int Run(const Arguments& arguments) {
  uint64_t total = 0;
  for (const uint64_t size : arguments.sizes) total += size;
  const absl::Span<std::byte> memory = Map(arguments.file, total);
  if (memory.empty()) return 1;
  std::map<std::string, absl::Span<std::byte>> places;
  uint64_t at = 0;
  for (size_t i = 0; i < arguments.sizes.size(); ++i) {
    places[absl::StrCat("t", i)] = memory.subspan(std::exchange(at, at + arguments.sizes[i]), arguments.sizes[i]);
  }
  const PeerLog log(arguments.log);
  WorkerOptions options;
  options.in_place = true;
  options.pull.worker = "in-place";
  options.first_pause = milliseconds(20);
  options.longest_pause = milliseconds(200);
  options.on_error = [](const absl::Status& status) { std::fprintf(stderr, "%s\n", status.ToString().c_str()); };
  options.place = [&](const TensorPart& part) -> absl::StatusOr<absl::Span<std::byte>> {
    return places[part.tensor.name];
  };
  options.install = [&](StagedVersion& staged) {
    log.Write("install", staged.version.version);
    if (arguments.die_at < total) DieAtWriteTo(memory, arguments.die_at);
    return absl::OkStatus();
  };
  ChannelOptions channel;
  channel.address = arguments.address;
  channel.transport = Transport::kWire;
  StopFlag never;
  Backoff backoff(milliseconds(20), milliseconds(200));
  while (true) {
    auto worker = Worker::Create(channel, options);
    if (worker.ok()) return (*worker)->Follow().ok() ? 0 : 1;
    (void)backoff.Wait(never);
  }
}

int Main(int argc, char** argv) {
  Arguments arguments;
  if (Parse(argc, argv, arguments)) return Run(arguments);
  std::fprintf(stderr, "usage: in-place-peer ADDRESS FILE LOG SIZE... [die-at BYTE]\n");
  return 2;
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) { return refit::Main(argc, argv); }

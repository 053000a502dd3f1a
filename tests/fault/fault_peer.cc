// A trainer that pushes for ever, or a worker that follows for ever; made to be killed. Each writes to a log what it
// does, so that whoever kills it can check that all of it was right.
//
//   fault-peer trainer ADDRESS LOG EPOCH SEED
//   fault-peer worker ADDRESS LOG NAME auto|wire
//
// On SIGUSR1 it forks, while it goes on. The child uses, drops or ignores what it has inherited, by turns, and ends;
// then the log says "forked", and "bad-fork" before if the child could use it, crashed or hung.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <random>
#include <string>

#include "absl/strings/numbers.h"
#include "client/calls/stop_flag.h"
#include "client/worker/backoff.h"
#include "refit/fork_guard.h"
#include "refit/publisher.h"
#include "refit/tuning.h"
#include "refit/worker.h"
#include "tests/fault/forker.h"
#include "tests/fault/peer_log.h"
#include "tests/support/test_model.h"

namespace refit {
namespace {

using std::chrono::milliseconds;

// Large enough for shared memory, and for many chunks. Most of a version is as in the one before.
const TestModel& Model() {
  static const TestModel model(3, 1100, 512, TestModel::Changes::kLittle);
  return model;
}

ChannelOptions To(const std::string& address, Transport transport) {
  ChannelOptions channel;
  channel.address = address;
  channel.transport = transport;
  channel.connect_timeout = std::chrono::seconds(2);
  channel.keepalive_interval = milliseconds(1000);
  channel.keepalive_timeout = milliseconds(1000);
  return channel;
}

// Numbers are never reused: an earlier life of this trainer may have begun a version with one.
uint64_t FirstNumber(const std::string& log) {
  std::ifstream lines(log);
  std::string word;
  uint64_t number = 0;
  uint64_t largest = 0;
  while (lines >> word >> number) largest = std::max(largest, number);
  return largest + 1;
}

class Trainer {
 public:
  Trainer(std::string address, const std::string& log, uint64_t epoch, uint64_t seed)
      : address_(std::move(address)), log_(log), next_(FirstNumber(log)), epoch_(epoch), random_(seed) {}

  [[noreturn]] void Run() {
    forker_.inherited = {.use = [this] { return RefusesUse(); },
                         .drop = [this] { std::unique_ptr<Publisher>(publisher_).reset(); }};
    while (true) {
      auto publisher = Publisher::Connect(To(address_, Transport::kAuto));
      if (publisher.ok()) {
        publisher_ = publisher->get();
        while (PushOne(**publisher)) Pause(30);
        publisher_ = nullptr;
      }
      Pause(100);
    }
  }

 private:
  void Pause(uint64_t most_ms) { (void)never_.WaitFor(milliseconds(random_() % most_ms)); }

  // Called in a child.
  bool RefusesUse() {
    Publisher* const publisher = publisher_;
    if (publisher == nullptr) return true;
    const auto push = publisher->Open(Model().Options(next_), Model().specs());
    return push.status().code() == absl::StatusCode::kFailedPrecondition;
  }

  bool PushOne(Publisher& publisher) {
    const uint64_t number = next_++;
    log_.Write("begin", number);
    PublishOptions options = Model().Options(number);
    options.trainer_epoch = epoch_;
    options.timeout = std::chrono::seconds(10);
    auto push = publisher.Open(options, Model().specs());
    if (!push.ok()) return false;
    const bool gives_up = random_() % 4 == 0;
    const size_t last = gives_up ? random_() % (Model().specs().size() + 1) : Model().specs().size();
    for (size_t i = 0; i < last; ++i) {
      const std::vector<std::byte> bytes = Model().Bytes(number, i);
      if (!(*push)->Append(i, bytes).ok()) return false;
    }
    if (gives_up) {
      log_.Write("abort", number);
      return random_() % 2 == 0 ? (*push)->Abort("chaos").ok() : true;  // or just lets go
    }
    if (!(*push)->Commit().ok()) return false;
    log_.Write("commit", number);
    return true;
  }

  const std::string address_;
  const PeerLog log_;
  Forker forker_{log_};
  std::atomic<Publisher*> publisher_{nullptr};  // while it lives
  uint64_t next_;
  const uint64_t epoch_;
  std::mt19937_64 random_;
  StopFlag never_;
};

int RunWorker(const std::string& address, const std::string& log_path, const std::string& name, Transport transport) {
  const PeerLog log(log_path);
  log.Write("start");
  WorkerOptions options;
  options.pull.worker = name;
  options.pull.resume_within = std::chrono::seconds(10);
  options.pull.idle_timeout = std::chrono::seconds(5);  // a flipped bit can lose a message without a trace
  options.keep_base = transport == Transport::kWire;
  options.first_pause = milliseconds(20);
  options.longest_pause = milliseconds(500);
  options.on_error = [](const absl::Status& status) { std::fprintf(stderr, "%s\n", status.ToString().c_str()); };
  options.install = [&](StagedVersion& staged) {
    const absl::Status status = Model().Check(staged);
    log.Write(status.ok() ? "install" : "bad", staged.version.version);
    if (staged.traffic.base_version.has_value()) log.Write("delta", staged.version.version);
    return status;
  };
  Forker forker(log);
  std::atomic<Worker*> current{nullptr};
  forker.inherited = {.use =
                          [&] {
                            Worker* const worker = current;
                            return worker == nullptr || absl::IsFailedPrecondition(worker->Refit().status());
                          },
                      .drop = [&] { std::unique_ptr<Worker>(current).reset(); }};
  StopFlag never;
  Backoff backoff(milliseconds(20), milliseconds(500));
  while (true) {
    auto worker = Worker::Create(To(address, transport), options);
    if (worker.ok()) {
      current = worker->get();
      const absl::Status followed = (*worker)->Follow();
      current = nullptr;
      return followed.ok() ? 0 : 1;
    }
    (void)backoff.Wait(never);
  }
}

int Main(int argc, char** argv) {
  const std::string role = argc > 1 ? argv[1] : "";
  uint64_t epoch = 0;
  uint64_t seed = 0;
  if (role == "trainer" && argc == 6 && absl::SimpleAtoi(argv[4], &epoch) && absl::SimpleAtoi(argv[5], &seed)) {
    Trainer(argv[2], argv[3], epoch, seed).Run();
  }
  if (role == "worker" && argc == 6) {
    return RunWorker(argv[2], argv[3], argv[4], std::string(argv[5]) == "wire" ? Transport::kWire : Transport::kAuto);
  }
  std::fprintf(
      stderr,
      "usage: fault-peer trainer ADDRESS LOG EPOCH SEED\n       fault-peer worker ADDRESS LOG NAME auto|wire\n");
  return 2;
}

}  // namespace
}  // namespace refit

#ifdef __SANITIZE_ADDRESS__
// In a child the leak checker would miss what only the stacks of its parent's threads hold.
extern "C" int __lsan_is_turned_off() { return refit::ProcessGeneration() != 0 ? 1 : 0; }
#endif

int main(int argc, char** argv) {
  refit::TuneForBulkData();
  return refit::Main(argc, argv);
}

// Rounds of random faults against real processes: a service with a spool, a trainer that pushes and gives up at will,
// a worker over a network that fails, one that shares memory with the service, and one below a relay, which has a
// network of its own to the service; while the relay is gone, its worker goes on at the service. In each round
// something breaks: a connection is cut, delayed, truncated, stalled, or has its bytes flipped or reordered; a process
// is killed with SIGKILL, stopped for a while, or asked to end; one of them forks; everybody's wall clock steps. Each
// life of the service, and of a worker, has surroundings of its own: few descriptors, little address space, a stderr
// that nobody reads and that is full. Then all must come back without help. After each round:
//
//   - no worker has ever installed anything but whole, verified versions that were not given up, in rising order
//   - no committed version that was on disk is lost
//   - a version that is committed from now on reaches all workers, in time
//   - no child of a fork could use what it inherited, or hung
//   - the service's memory and descriptors are what they were, and the relay's memory
//
//   chaos_test [--rounds N | --seconds N] [--seed N]
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/inspector.h"
#include "tests/fault/fault_proxy.h"
#include "tests/fault/wall_clock_steps.h"
#include "tests/integration/service_process.h"
#include "tests/support/number_flags.h"
#include "tests/support/sanitized.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

struct Settings {
  uint64_t rounds = 0;  // 0: as many as fit into `seconds`
  uint64_t seconds = 60;
  uint64_t seed = 1;
};
Settings settings;

constexpr std::chrono::seconds kRecovery{40};
constexpr uint64_t kMoreDescriptors = 24;  // connections that come and go, a version's memory
constexpr uint64_t kMostResident = uint64_t{400} << 20;
// Enough for what there is to do, and for little more.
constexpr uint64_t kFewDescriptors = 256;
constexpr uint64_t kFewDescriptorsOfPeer = 96;
constexpr uint64_t kLittleSpace = uint64_t{4} << 30;

// What a log says so far.
struct Log {
  std::vector<std::pair<std::string, uint64_t>> lines;

  static Log Read(const std::string& path) {
    Log log;
    std::ifstream file(path);
    std::string word;
    uint64_t number = 0;
    while (file >> word >> number) log.lines.emplace_back(word, number);
    return log;
  }
  std::set<uint64_t> Numbers(const std::string& word) const {
    std::set<uint64_t> numbers;
    for (const auto& [what, number] : lines) {
      if (what == word) numbers.insert(number);
    }
    return numbers;
  }
  size_t Count(const std::string& word) const {
    return std::count_if(lines.begin(), lines.end(), [&](const auto& line) { return line.first == word; });
  }
  uint64_t Last(const std::string& word) const {
    uint64_t last = 0;
    for (const auto& [what, number] : lines) {
      if (what == word) last = number;
      if (what == "start") last = 0;  // another life
    }
    return last;
  }
};

struct Process {
  std::string name;
  std::vector<std::string> arguments;
  std::string log;
  std::unique_ptr<Subprocess> running;
};

// What was said at the end matters most.
std::string LastOf(const std::string& text) {
  constexpr size_t kShown = 4000;
  return text.size() <= kShown ? text : "..." + text.substr(text.size() - kShown);
}

// A pipe that is full, and that nobody reads.
class UnreadPipe {
 public:
  UnreadPipe() : path_(folder_.Path("stderr")) {
    if (mkfifo(path_.c_str(), 0600) == 0) fd_ = open(path_.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    while (write(fd_, "unread\n", 7) > 0) continue;
  }
  ~UnreadPipe() { close(fd_); }
  UnreadPipe(const UnreadPipe&) = delete;
  UnreadPipe& operator=(const UnreadPipe&) = delete;

  const std::string& path() const { return path_; }

 private:
  TemporaryFolder folder_;
  const std::string path_;
  int fd_ = -1;
};

class Chaos {
 public:
  Chaos()
      : random_(settings.seed),
        spool_(folder_.Path("spool")),
        service_(StartService(0)),
        to_worker_(service_->port()),
        to_trainer_(service_->port()),
        to_relay_(service_->port()),
        relay_(StartRelay(0)) {
    Add("far worker", {"worker", to_worker_.address(), folder_.Path("far"), "far", "wire"}, folder_.Path("far"));
    Add("near worker", {"worker", service_->address(), folder_.Path("near"), "near", "auto"}, folder_.Path("near"));
    StartTrainer();
    const std::string both = relay_->address() + "," + to_worker_.address();
    Add("worker below", {"worker", both, folder_.Path("below"), "below", "auto"}, folder_.Path("below"));
    for (const size_t worker : kWorkers) Start(processes_[worker]);
  }

  ~Chaos() {
    // Before the service: what they say of its end is of no interest.
    processes_.clear();
  }

  void Run() {
    ASSERT_FALSE(service_->address().empty()) << service_->Err();
    ASSERT_FALSE(relay_->address().empty()) << relay_->Err();
    const Clock::time_point begin = Clock::now();
    AwaitProgress("the start");
    Baseline();
    const auto go_on = [&] {
      return settings.rounds != 0 ? rounds_ < settings.rounds
                                  : Clock::now() - begin < std::chrono::seconds(settings.seconds);
    };
    while (go_on() && !::testing::Test::HasFailure()) Round();
    EXPECT_GT(deltas_, 0u) << "the far worker never got a delta";
    Report(std::chrono::duration<double>(Clock::now() - begin).count());
  }

 private:
  static constexpr std::array<size_t, 3> kWorkers = {0, 1, 3};  // of processes_

  std::unique_ptr<ServiceProcess> StartRelay(int port) {
    std::vector<std::string> flags = {
        "--upstream", to_relay_.address(), "--name", "relay",       "--memory", "128MiB", "--retain",
        "2",          "--peer-timeout",    "2",      "--log-level", "warning"};
    const bool keeps = random_() % 2 == 0;
    if (keeps) flags.insert(flags.end(), {"--spool", folder_.Path("relay-spool")});
    ++surroundings_[keeps ? "relay with a spool" : "relay without a spool"];
    return std::make_unique<ServiceProcess>(flags, port, Subprocess::Surroundings{.by = UnderClock()});
  }

  std::unique_ptr<ServiceProcess> StartService(int port) {
    std::vector<std::string> flags = {"--spool", spool_,          "--memory", "128MiB",         "--retain",
                                      "2",       "--chunk-bytes", "64KiB",    "--peer-timeout", "2"};
    Subprocess::Surroundings around{.by = UnderClock()};
    std::string where = "service in plenty";
    switch (random_() % 4) {
      case 0:
        AddLimits({absl::StrCat("--nofile=", kFewDescriptors)}, around);
        where = "service with few descriptors";
        break;
      case 1:
        if (kSanitized) break;  // which takes terabytes of it
        AddLimits({absl::StrCat("--as=", kLittleSpace)}, around);
        where = "service with little address space";
        break;
      case 2:
        around.stderr_path = unread_.path();
        flags.insert(flags.end(), {"--log-level", "debug"});
        where = "service whose log nobody reads";
        break;
      default:
        break;
    }
    if (around.stderr_path.empty()) flags.insert(flags.end(), {"--log-level", "warning"});
    ++surroundings_[where];
    return std::make_unique<ServiceProcess>(flags, port, around);
  }

  std::vector<std::string> UnderClock() const {
    return kSanitized ? std::vector<std::string>() : clock_.Starter();  // whose own library must be the first
  }
  static void AddLimits(const std::vector<std::string>& limits, Subprocess::Surroundings& around) {
    around.by.emplace_back("prlimit");
    around.by.insert(around.by.end(), limits.begin(), limits.end());
  }

  void Add(const std::string& name, std::vector<std::string> arguments, std::string log) {
    processes_.push_back({name, std::move(arguments), std::move(log), nullptr});
  }
  void Start(Process& process) {
    Subprocess::Surroundings around{.by = UnderClock()};
    const bool is_low = random_() % 4 == 0;
    if (is_low) AddLimits({absl::StrCat("--nofile=", kFewDescriptorsOfPeer)}, around);
    ++surroundings_[absl::StrCat(process.name, is_low ? " with few descriptors" : " in plenty")];
    process.running = Subprocess::Start("fault-peer", process.arguments, around);
  }

  void StartTrainer() {
    const std::string log = folder_.Path("trainer");
    if (processes_.size() < 3) Add("trainer", {}, log);
    processes_[2].arguments = {"trainer", to_trainer_.address(), log, absl::StrCat(++epoch_), absl::StrCat(random_())};
    Start(processes_[2]);
  }

  void Sleep(uint64_t most_ms) { std::this_thread::sleep_for(milliseconds(random_() % (most_ms + 1))); }

  void Round() {
    ++rounds_;
    Sleep(60);
    const Clock::time_point struck = Clock::now();
    const std::string what = Strike();
    ++faults_[what];
    to_worker_.Heal();
    to_trainer_.Heal();
    to_relay_.Heal();
    AwaitProgress(what);
    slowest_ = std::max(slowest_, std::chrono::duration<double>(Clock::now() - struck).count());
    Check(what);
    if (rounds_ % 100 == 0) std::printf("%d rounds\n", static_cast<int>(rounds_)), std::fflush(stdout);
  }

  // Breaks something, and mends only what cannot come back by itself: a process that is gone is started again.
  std::string Strike() {
    switch (random_() % 14) {
      case 0:
      case 1:
        return BreakNetwork(to_worker_, "worker");
      case 2:
      case 3:
        return BreakNetwork(to_trainer_, "trainer");
      case 4:
        return KillService(SIGKILL, "kill service");
      case 5:
        return random_() % 2 == 0 ? KillService(SIGTERM, "end service") : Stop();
      case 6:
        return KillPeer(2);
      case 7:
      case 8:
        return StepClock();
      case 9:
        return Fork();
      case 10:
      case 11:
        return BreakNetwork(to_relay_, "relay");
      case 12:
        return KillRelay();
      default:
        return KillPeer(kWorkers[random_() % kWorkers.size()]);
    }
  }

  std::string BreakNetwork(FaultProxy& proxy, const std::string& whose) {
    constexpr std::array<std::pair<Fault::Kind, const char*>, 6> kKinds = {{{Fault::Kind::kCut, "cut"},
                                                                            {Fault::Kind::kTruncate, "truncate"},
                                                                            {Fault::Kind::kFlip, "flip"},
                                                                            {Fault::Kind::kReorder, "reorder"},
                                                                            {Fault::Kind::kDelay, "delay"},
                                                                            {Fault::Kind::kStall, "stall"}}};
    const auto& [kind, name] = kKinds[random_() % kKinds.size()];
    const uint64_t struck = proxy.struck();
    // Most bytes go from trainer to service, and from service to worker.
    const bool pulls = whose != "trainer";
    const bool towards_client = pulls == (random_() % 8 != 0);
    proxy.Inject({.kind = kind,
                  .after_bytes = random_() % (towards_client == pulls ? 3'000'000 : 300),
                  .towards_client = towards_client,
                  .delay = milliseconds(random_() % 300)});
    const Clock::time_point end = Clock::now() + milliseconds(600);
    while (proxy.struck() == struck && Clock::now() < end) Sleep(4);
    if (proxy.struck() == struck) return absl::StrCat(whose, "'s network: nothing moved");
    Sleep(kind == Fault::Kind::kStall ? 2500 : 20);
    return absl::StrCat(whose, "'s network: ", name);
  }

  std::string KillService(int signal, const std::string& what) {
    const std::set<uint64_t> spooled = Spooled();
    Sleep(40);
    service_->process().Signal(signal);
    const Outcome outcome = service_->Wait();
    EXPECT_EQ(outcome.code, signal == SIGKILL ? 137 : 0) << outcome.err;
    Sleep(200);
    const int port = service_->port();
    service_ = StartService(port);
    EXPECT_EQ(service_->port(), port) << service_->Err();
    if (!spooled.empty() && service_->port() != 0) {
      const std::set<uint64_t> after = Spooled();
      EXPECT_TRUE(!after.empty() && *after.rbegin() >= *spooled.rbegin())
          << "version " << *spooled.rbegin() << " was on disk; after " << what << " the newest there is "
          << (after.empty() ? 0 : *after.rbegin());
    }
    has_baseline_ = false;
    return what;
  }

  std::string KillRelay() {
    Sleep(40);
    relay_->process().Signal(SIGKILL);
    (void)relay_->Wait();
    Sleep(200);
    const int port = relay_->port();
    relay_ = StartRelay(port);
    EXPECT_EQ(relay_->port(), port) << relay_->Err();
    return "kill relay";
  }

  std::string KillPeer(size_t index) {
    Process& process = processes_[index];
    Sleep(40);
    process.running->Signal(SIGKILL);
    (void)process.running->Wait();
    Sleep(100);
    index == 2 ? StartTrainer() : Start(process);
    return absl::StrCat("kill ", process.name);
  }

  // A process that hangs for a while, longer or shorter than the service has patience.
  std::string Stop() {
    const size_t index = random_() % (processes_.size() + 2);
    const bool is_peer = index < processes_.size();
    ServiceProcess& service = index == processes_.size() ? *service_ : *relay_;
    const Subprocess& process = is_peer ? *processes_[index].running : service.process();
    process.Signal(SIGSTOP);
    Sleep(3000);
    process.Signal(SIGCONT);
    return absl::StrCat("stop ", is_peer ? processes_[index].name : &service == service_.get() ? "service" : "relay");
  }

  // All processes' at once, as on one machine, or while some are held up.
  std::string StepClock() {
    if (kSanitized) return "clock: not under a sanitizer";
    constexpr std::array<int64_t, 7> kAhead = {0, 1, -1, 120, -120, -3600, 86'400};
    const int64_t ahead = kAhead[random_() % kAhead.size()];
    Sleep(40);
    clock_.Set(ahead);
    Sleep(200);
    return absl::StrCat("clock: ", ahead, " s");
  }

  // Its child uses, drops or ignores what it has inherited, while traffic goes on.
  std::string Fork() {
    Process& process = processes_[random_() % 3];
    const auto forks = [&] { return Log::Read(process.log).Count("forked"); };
    const size_t before = forks();
    process.running->Signal(SIGUSR1);
    const Clock::time_point end = Clock::now() + kRecovery;
    while (forks() == before && Clock::now() < end) Sleep(4);
    EXPECT_GT(forks(), before) << process.name << "'s child did not end, round " << rounds_;
    return absl::StrCat("fork ", process.name);
  }

  std::set<uint64_t> Spooled() const {
    std::set<uint64_t> numbers;
    auto inspector = Inspector::Connect(service_->Channel());
    if (!inspector.ok()) return numbers;
    const auto versions = (*inspector)->Versions();
    if (!versions.ok()) return numbers;
    for (const v1::VersionSummary& version : versions->versions()) {
      if (version.spooled() && version.state() == v1::VERSION_STATE_COMMITTED) numbers.insert(version.version());
    }
    return numbers;
  }

  // A version that is committed after now is installed by all workers.
  void AwaitProgress(const std::string& after) {
    const uint64_t before = Log::Read(processes_[2].log).Last("begin");
    const Clock::time_point end = Clock::now() + kRecovery;
    uint64_t committed = 0;
    while (true) {
      const std::set<uint64_t> commits = Log::Read(processes_[2].log).Numbers("commit");
      const auto fresh = commits.upper_bound(before);
      if (fresh != commits.end()) committed = *fresh;
      const uint64_t far = Log::Read(processes_[0].log).Last("install");
      const uint64_t near = Log::Read(processes_[1].log).Last("install");
      const uint64_t below = Log::Read(processes_[3].log).Last("install");
      if (committed != 0 && std::min({far, near, below}) >= committed) return;
      if (Clock::now() > end) {
        ADD_FAILURE() << "no recovery after " << after << " (round " << rounds_ << ", seed " << settings.seed
                      << "): committed " << committed << ", beyond " << before << " was wanted; the far worker has "
                      << far << ", the near one " << near << ", the one below the relay " << below
                      << "\nservice: " << LastOf(service_->Err()) << "\nrelay: " << LastOf(relay_->Err())
                      << "\nfar worker: " << LastOf(processes_[0].running->Err())
                      << "\nnear worker: " << LastOf(processes_[1].running->Err())
                      << "\nworker below: " << LastOf(processes_[3].running->Err());
        return;
      }
      std::this_thread::sleep_for(milliseconds(5));
    }
  }

  void Baseline() {
    descriptors_ = service_->OpenDescriptors();
    has_baseline_ = true;
  }

  void Check(const std::string& after) {
    const Log trainer = Log::Read(processes_[2].log);
    const std::set<uint64_t> begun = trainer.Numbers("begin");
    const std::set<uint64_t> aborted = trainer.Numbers("abort");
    for (const size_t index : kWorkers) {
      const Process* worker = &processes_[index];
      const Log log = Log::Read(worker->log);
      uint64_t last = 0;
      installs_ = 0;
      for (const auto& [what, number] : log.lines) {
        if (what == "start") last = 0;
        EXPECT_NE(what, "bad") << worker->name << " got wrong bytes of version " << number << " after " << after;
        if (what != "install") continue;
        ++installs_;
        EXPECT_GT(number, last) << worker->name << " went back after " << after;
        EXPECT_EQ(begun.count(number), 1u) << worker->name << " has version " << number << ", which nobody pushed";
        EXPECT_EQ(aborted.count(number), 0u) << worker->name << " has version " << number << ", which was given up";
        last = number;
      }
    }
    for (const Process& process : processes_) {
      EXPECT_EQ(Log::Read(process.log).Count("bad-fork"), 0u) << "a child of " << process.name << " after " << after;
    }
    deltas_ = Log::Read(processes_[0].log).Count("delta");
    commits_ = trainer.Numbers("commit").size();
    aborts_ = aborted.size();
    CheckService(after);
  }

  void CheckService(const std::string& after) {
    const uint64_t resident = service_->ResidentBytes();
    most_resident_ = std::max(most_resident_, resident);
    if (!kSanitized) {
      EXPECT_LT(resident, kMostResident) << "after " << after;
      EXPECT_LT(relay_->ResidentBytes(), kMostResident) << "of the relay, after " << after;
    }
    if (!has_baseline_) return Baseline();
    const uint64_t descriptors = service_->OpenDescriptors();
    most_descriptors_ = std::max(most_descriptors_, descriptors);
    EXPECT_LE(descriptors, descriptors_ + kMoreDescriptors) << "after " << after << ", round " << rounds_;
  }

  void Report(double seconds) const {
    std::printf("%llu rounds in %.1f s with seed %llu, all recovered; the slowest took %.1f s\n",
                static_cast<unsigned long long>(rounds_), seconds, static_cast<unsigned long long>(settings.seed),
                slowest_);
    for (const auto& [what, count] : faults_) {
      std::printf("  %6llu x %s\n", static_cast<unsigned long long>(count), what.c_str());
    }
    std::printf("lives:\n");
    for (const auto& [where, count] : surroundings_) {
      std::printf("  %6llu x %s\n", static_cast<unsigned long long>(count), where.c_str());
    }
    std::printf("%llu versions committed, %llu given up, %llu installs by the worker below the relay, none wrong\n",
                static_cast<unsigned long long>(commits_), static_cast<unsigned long long>(aborts_),
                static_cast<unsigned long long>(installs_));
    std::printf("%llu installs of deltas by the far worker\n", static_cast<unsigned long long>(deltas_));
    std::printf("the service: at most %.0f MiB resident, %llu descriptors\n",
                static_cast<double>(most_resident_) / (1 << 20), static_cast<unsigned long long>(most_descriptors_));
  }

  std::mt19937_64 random_;
  TemporaryFolder folder_;
  WallClockSteps clock_;
  const UnreadPipe unread_;
  std::map<std::string, uint64_t> surroundings_;
  const std::string spool_;
  std::unique_ptr<ServiceProcess> service_;
  FaultProxy to_worker_;
  FaultProxy to_trainer_;
  FaultProxy to_relay_;
  std::unique_ptr<ServiceProcess> relay_;
  std::vector<Process> processes_;  // far worker, near worker, trainer, worker below the relay
  uint64_t epoch_ = 0;
  uint64_t rounds_ = 0;
  std::map<std::string, uint64_t> faults_;
  double slowest_ = 0;
  uint64_t commits_ = 0;
  uint64_t aborts_ = 0;
  uint64_t installs_ = 0;
  uint64_t deltas_ = 0;
  bool has_baseline_ = false;
  uint64_t descriptors_ = 0;
  uint64_t most_descriptors_ = 0;
  uint64_t most_resident_ = 0;
};

TEST(Chaos, EverythingComesBackAndNothingIsWrong) { Chaos().Run(); }

}  // namespace

}  // namespace refit

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const auto into = [](uint64_t& value) { return [&value](uint64_t number) { value = number; }; };
  if (!refit::ReadNumberFlags(argc, argv,
                              {{"--rounds", into(refit::settings.rounds)},
                               {"--seconds", into(refit::settings.seconds)},
                               {"--seed", into(refit::settings.seed)}})) {
    return 2;
  }
  return RUN_ALL_TESTS();
}

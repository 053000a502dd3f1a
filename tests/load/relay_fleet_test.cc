// Many workers below relays: each installs each version, the root counts all of them, and neither its memory nor its
// descriptors, nor those of the relays, grow with the versions.
//
//   relay_fleet_test [--workers N] [--relays N] [--versions N]      default: 100 workers on 5 relays, 12 versions
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/tuning.h"
#include "refit/worker.h"
#include "tests/integration/service_process.h"
#include "tests/support/number_flags.h"
#include "tests/support/sanitized.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_model.h"

namespace refit {
namespace {

struct Settings {
  uint64_t workers = kSanitized ? 20 : 100;
  uint64_t relays = 5;
  uint64_t versions = 12;
};
Settings settings;

constexpr std::chrono::seconds kPatience{120};
constexpr uint64_t kMemorySlack = uint64_t{32} << 20;
constexpr uint64_t kDescriptorSlack = 16;

// A worker that follows in a thread of its own.
class Light {
 public:
  Light(const std::string& address, const std::string& name, std::atomic<uint64_t>& failures) {
    WorkerOptions options;
    options.pull.worker = name;
    options.install = [](StagedVersion&) { return absl::OkStatus(); };
    options.on_error = [&failures](const absl::Status& status) {
      if (++failures < 5) ADD_FAILURE() << status;
    };
    ChannelOptions channel{.address = address, .transport = Transport::kWire};
    channel.connect_timeout = kPatience;
    auto worker = Worker::Create(channel, std::move(options));
    EXPECT_OK(worker);
    if (!worker.ok()) return;
    worker_ = *std::move(worker);
    thread_ = std::thread([this] { EXPECT_OK(worker_->Follow()); });
  }
  ~Light() {
    if (worker_ == nullptr) return;
    worker_->Stop();
    thread_.join();
  }

 private:
  std::unique_ptr<Worker> worker_;
  std::thread thread_;
};

void RaiseDescriptorLimit() {
  rlimit limit = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

struct Usage {
  uint64_t memory = 0;
  uint64_t descriptors = 0;
};
Usage Of(const ServiceProcess& service) { return {service.ResidentBytes(), service.OpenDescriptors()}; }

void ExpectFlat(const char* who, const Usage& before, const Usage& after) {
  std::printf("%s: %.1f MiB, at the end %.1f; descriptors %llu, at the end %llu\n", who,
              static_cast<double>(before.memory) / (1 << 20), static_cast<double>(after.memory) / (1 << 20),
              static_cast<unsigned long long>(before.descriptors), static_cast<unsigned long long>(after.descriptors));
  if (!kSanitized) {
    EXPECT_LE(after.memory, before.memory + kMemorySlack) << who;
  }
  EXPECT_LE(after.descriptors, before.descriptors + kDescriptorSlack) << who;
}

TEST(RelayFleet, ManyWorkersBelowRelaysCostTheRootNothing) {
  RaiseDescriptorLimit();
  TuneForBulkData();
  const std::vector<std::string> flags = {
      "--memory", "256MiB", "--max-streams-per-peer", absl::StrCat(5 * settings.workers + 100), "--log-level", "error"};
  const ServiceProcess root(flags);
  ASSERT_FALSE(root.address().empty()) << root.Err();
  std::vector<std::unique_ptr<ServiceProcess>> relays;
  for (uint64_t i = 0; i < settings.relays; ++i) {
    std::vector<std::string> below = flags;
    below.insert(below.end(), {"--upstream", root.address(), "--name", absl::StrCat("relay-", i)});
    relays.push_back(std::make_unique<ServiceProcess>(below));
    ASSERT_FALSE(relays.back()->address().empty()) << relays.back()->Err();
  }
  std::atomic<uint64_t> failures = 0;
  std::vector<std::unique_ptr<Light>> workers;
  for (uint64_t i = 0; i < settings.workers; ++i) {
    workers.push_back(std::make_unique<Light>(relays[i % relays.size()]->address(), absl::StrCat("w", i), failures));
  }
  const TestModel model;
  auto publisher = Publisher::Connect(root.Channel());
  ASSERT_OK(publisher);
  Usage root_before;
  Usage relay_before;
  for (uint64_t version = 1; version <= settings.versions; ++version) {
    ASSERT_OK(model.Push(**publisher, version));
    const auto have = (*publisher)
                          ->AwaitWorkers({.version = version,
                                          .workers = static_cast<uint32_t>(settings.workers),
                                          .all = true,
                                          .timeout = kPatience});
    ASSERT_OK(have);
    EXPECT_EQ(*have, settings.workers);
    if (version == settings.versions / 3) root_before = Of(root), relay_before = Of(*relays.front());
  }
  ExpectFlat("the root", root_before, Of(root));
  ExpectFlat("a relay", relay_before, Of(*relays.front()));
  EXPECT_EQ(failures, 0u);
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const auto into = [](uint64_t& value) { return [&value](uint64_t number) { value = number; }; };
  if (!refit::ReadNumberFlags(argc, argv,
                              {{"--workers", into(refit::settings.workers)},
                               {"--relays", into(refit::settings.relays)},
                               {"--versions", into(refit::settings.versions)}})) {
    return 2;
  }
  return RUN_ALL_TESTS();
}

// Many workers at once pull a small version again and again while versions keep coming: no error, every byte right, no
// worker goes back to an older version, and neither memory nor descriptors grow, here or in the service.
//
//   load_test [--seconds N] [--workers N]      default: 45 s, 200 workers (40 sanitized); see deploy/load.sh
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "refit/publisher.h"
#include "refit/subscriber.h"
#include "refit/tuning.h"
#include "tests/integration/service_process.h"
#include "tests/support/number_flags.h"
#include "tests/support/sanitized.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

int seconds = 45;
int workers = kSanitized ? 40 : 200;  // so many that each still answers in time

constexpr std::chrono::milliseconds kBetweenVersions{250};
constexpr std::chrono::milliseconds kBetweenSamples{500};
constexpr size_t kSamplesAveraged = 10;
constexpr uint64_t kPullsOfAConnection = 20;  // then the worker leaves, and comes anew
// What may come on top of what there was after the first third.
constexpr double kMemoryGrowth = 0.10;
constexpr uint64_t kMemorySlack = 16 << 20;
constexpr uint64_t kDescriptorSlack = 20;

// One tensor that workers on this host map, and small ones that travel together.
std::vector<TensorSpec> Specs() {
  std::vector<TensorSpec> specs = {{"large", DType::kU8, {2 << 20}}};
  for (int i = 0; i < 16; ++i) specs.push_back({absl::StrCat("small.", i), DType::kU8, {4096}});
  return specs;
}

// The words of a tensor, different for every version, tensor and place.
uint64_t WordOf(uint64_t version, size_t tensor, size_t place) {
  return (version * 1'000'003 + tensor) * 0x9E3779B97F4A7C15 + place * 0xD1B54A32D192ED03;
}

std::vector<std::byte> BytesOf(uint64_t version, size_t tensor, uint64_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t at = 0; at < size; at += sizeof(uint64_t)) {
    const uint64_t word = WordOf(version, tensor, at);
    std::memcpy(&bytes[at], &word, sizeof(word));
  }
  return bytes;
}

bool IsRight(absl::Span<const std::byte> bytes, uint64_t version, size_t tensor) {
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    const uint64_t word = WordOf(version, tensor, at);
    if (std::memcmp(&bytes[at], &word, sizeof(word)) != 0) return false;
  }
  return true;
}

// The end of the test, and what went wrong before it.
class Course {
 public:
  bool over() const { return over_; }
  void End() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    ended_.notify_all();
  }
  void Fail(const std::string& what) {
    {
      const std::lock_guard lock(mutex_);
      if (failures_.size() < 10) failures_.push_back(what);
    }
    End();
  }
  // Until the next moment, or the end.
  void WaitUntil(Clock::time_point moment) {
    std::unique_lock lock(mutex_);
    ended_.wait_until(lock, moment, [&] { return over_.load(); });
  }
  std::vector<std::string> failures() {
    const std::lock_guard lock(mutex_);
    return failures_;
  }

  std::atomic<uint64_t> pulls{0};
  std::atomic<uint64_t> pulled_bytes{0};
  std::atomic<uint64_t> versions{0};
  std::atomic<uint64_t> connections{0};

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  std::atomic<bool> over_{false};
  std::vector<std::string> failures_;
};

absl::Status PublishOne(Publisher& publisher, uint64_t number) {
  PublishOptions options;
  options.version = number;
  options.adapter = "identity";
  const std::vector<TensorSpec> specs = Specs();
  auto version = publisher.Open(options, specs);
  if (!version.ok()) return version.status();
  for (size_t i = 0; i < specs.size(); ++i) {
    const absl::Status status = (*version)->Append(i, BytesOf(number, i, specs[i].ByteSize()));
    if (!status.ok()) return status;
  }
  return (*version)->Commit().status();
}

void Publish(const std::string& address, uint64_t next, Course& course) {
  auto publisher = Publisher::Connect({.address = address});
  if (!publisher.ok()) return course.Fail(publisher.status().ToString());
  for (Clock::time_point moment = Clock::now(); !course.over(); moment += kBetweenVersions) {
    const absl::Status status = PublishOne(**publisher, next++);
    if (!status.ok()) return course.Fail(status.ToString());
    ++course.versions;
    course.WaitUntil(moment);
  }
}

// One pull, looked at to the last byte; the version that came.
absl::StatusOr<uint64_t> PullOne(Subscriber& subscriber, uint64_t least, Course& course) {
  const auto pulled = subscriber.Pull(PullOptions());
  if (!pulled.ok()) return pulled.status();
  const uint64_t version = pulled->result.version.version;
  if (version < least) return absl::InternalError(absl::StrCat("version ", version, " after ", least));
  if (pulled->tensors.size() != Specs().size()) return absl::InternalError("tensors are missing");
  for (size_t i = 0; i < pulled->tensors.size(); ++i) {
    const PulledTensor& tensor = pulled->tensors[i];
    if (!IsRight(tensor.data->span(), version, i)) {
      return absl::DataLossError(absl::StrCat(tensor.part.ToString(), " of version ", version, " has wrong bytes"));
    }
    course.pulled_bytes += tensor.data->size();
  }
  ++course.pulls;
  return version;
}

void Work(const std::string& address, int worker, Course& course) {
  ChannelOptions options{.address = address, .transport = worker % 2 == 0 ? Transport::kAuto : Transport::kWire};
  options.connect_timeout = std::chrono::seconds(60);
  uint64_t newest = 0;
  while (!course.over()) {
    auto subscriber = Subscriber::Connect(options);
    if (!subscriber.ok()) return course.Fail(absl::StrCat("worker ", worker, ": ", subscriber.status().ToString()));
    ++course.connections;
    for (uint64_t pull = 0; pull < kPullsOfAConnection && !course.over(); ++pull) {
      const absl::StatusOr<uint64_t> version = PullOne(**subscriber, newest, course);
      if (!version.ok()) return course.Fail(absl::StrCat("worker ", worker, ": ", version.status().ToString()));
      newest = *version;
    }
  }
}

// What a process uses, over time.
class Usage {
 public:
  explicit Usage(pid_t pid) : pid_(pid) {}
  void Sample() {
    memory_.push_back(ResidentBytes(pid_));
    descriptors_.push_back(OpenDescriptors(pid_));
  }
  void Expect(const char* who, size_t first) const {
    ASSERT_GE(memory_.size(), first + 2 * kSamplesAveraged) << "too short a time";
    const uint64_t memory = Average(memory_, first);
    const uint64_t memory_end = Average(memory_, memory_.size() - kSamplesAveraged);
    const uint64_t descriptors = Average(descriptors_, first);
    const uint64_t descriptors_end = Average(descriptors_, descriptors_.size() - kSamplesAveraged);
    std::cout << absl::StrFormat("%s: memory %.1f MiB, at the end %.1f; descriptors %d, at the end %d\n", who,
                                 MiB(memory), MiB(memory_end), descriptors, descriptors_end);
    if (!kSanitized) {
      EXPECT_LE(MiB(memory_end), MiB(memory) * (1 + kMemoryGrowth) + MiB(kMemorySlack)) << who;
    }
    EXPECT_LE(descriptors_end, descriptors + kDescriptorSlack) << who;
  }

 private:
  static double MiB(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }
  static uint64_t Average(const std::vector<uint64_t>& samples, size_t first) {
    uint64_t sum = 0;
    for (size_t i = first; i < first + kSamplesAveraged; ++i) sum += samples[i];
    return sum / kSamplesAveraged;
  }

  const pid_t pid_;
  std::vector<uint64_t> memory_;
  std::vector<uint64_t> descriptors_;
};

void RaiseDescriptorLimit() {
  rlimit limit = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

TEST(Load, ManyWorkersWhileVersionsKeepComing) {
  RaiseDescriptorLimit();
  TuneForBulkData();
  // With sanitizers on a busy machine, threads may wait for a processor for seconds.
  const std::string peer_timeout = kSanitized ? "60" : "10";
  ServiceProcess service(
      {"--memory", "512MiB", "--retain", "2", "--log-level", "warning", "--peer-timeout", peer_timeout});
  auto publisher = Publisher::Connect({.address = service.address()});
  ASSERT_OK(publisher);
  ASSERT_OK(PublishOne(**publisher, 1));

  Course course;
  std::vector<std::thread> threads;
  threads.emplace_back([&] { Publish(service.address(), 2, course); });
  for (int worker = 0; worker < workers; ++worker) {
    threads.emplace_back([&, worker] { Work(service.address(), worker, course); });
  }
  Usage of_service(service.process().pid());
  Usage of_workers(getpid());
  const Clock::time_point begin = Clock::now();
  size_t first = 0;  // sample after the first third, when all have been through everything
  for (Clock::time_point moment = begin; !course.over() && moment < begin + std::chrono::seconds(seconds);) {
    moment += kBetweenSamples;
    course.WaitUntil(moment);
    of_service.Sample();
    of_workers.Sample();
    if (moment - begin <= std::chrono::seconds(seconds) / 3) ++first;
  }
  course.End();
  for (std::thread& thread : threads) thread.join();

  for (const std::string& failure : course.failures()) ADD_FAILURE() << failure;
  ASSERT_TRUE(service.process().IsRunning()) << service.process().Err();
  std::cout << absl::StrFormat("%d s, %d workers: %d pulls on %d connections, %d versions, %.1f GB\n", seconds, workers,
                               course.pulls.load(), course.connections.load(), course.versions.load(),
                               static_cast<double>(course.pulled_bytes) / 1e9);
  EXPECT_GT(course.pulls, static_cast<uint64_t>(workers));
  EXPECT_GT(course.versions, 1u);
  of_service.Expect("service", first);
  of_workers.Expect("workers", first);
}

}  // namespace
}  // namespace refit

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const auto into = [](int& value) { return [&value](uint64_t number) { value = static_cast<int>(number); }; };
  if (!refit::ReadNumberFlags(argc, argv, {{"--seconds", into(refit::seconds)}, {"--workers", into(refit::workers)}})) {
    return 2;
  }
  return RUN_ALL_TESTS();
}

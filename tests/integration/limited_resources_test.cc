// Descriptors, mappings and memory that run out, in real processes: what stands goes on, and the limit is named.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "common/tensor/slab.h"
#include "refit/inspector.h"
#include "refit/publisher.h"
#include "refit/server.h"
#include "refit/subscriber.h"
#include "refit/worker.h"
#include "tests/integration/service_process.h"
#include "tests/support/low_limit.h"
#include "tests/support/push.h"
#include "tests/support/sanitized.h"
#include "tests/support/status_matchers.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

constexpr int64_t kMiB = 1 << 20;

struct Used {
  uint64_t descriptors = 0;
  uint64_t mappings = 0;
};

Used UsedBy(pid_t pid) {
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  return {OpenDescriptors(pid), static_cast<uint64_t>(std::count(std::istreambuf_iterator<char>(maps),
                                                                 std::istreambuf_iterator<char>(), '\n'))};
}

// What of both `versions` versions may take, besides some of gRPC's and the allocator's own.
void ExpectFewMore(const Used& before, const Used& after, uint64_t versions) {
  constexpr uint64_t kOthers = 64;
  EXPECT_LE(after.descriptors, before.descriptors + versions * SlabPlan::kMostSlabs + 16);
  // Sanitizers have mappings of their own.
  if (!kSanitized) {
    EXPECT_LE(after.mappings, before.mappings + versions * SlabPlan::kMostSlabs + kOthers);
  }
}

std::vector<TensorSpec> Tensors(size_t count, int64_t bytes) {
  std::vector<TensorSpec> specs;
  for (size_t i = 0; i < count; ++i)
    specs.push_back({"tensor." + std::to_string(i), DType::kU8, {bytes + static_cast<int64_t>(i % 3)}});
  return specs;
}

// Cheap to make, and unlike in each tensor and version.
Bytes Values(const TensorSpec& spec, size_t index, uint64_t version) {
  Bytes bytes(spec.ByteSize(), static_cast<std::byte>(index + version));
  std::memcpy(bytes.data(), &index, std::min(sizeof(index), bytes.size()));
  return bytes;
}

absl::Status Push(const ChannelOptions& channel, uint64_t version, const std::vector<TensorSpec>& specs) {
  return PushIdentity(channel, version, specs, [&](size_t i) { return Values(specs[i], i, version); }).status();
}

void ExpectIs(const PulledVersion& pulled, const std::vector<TensorSpec>& specs, uint64_t version) {
  ASSERT_EQ(pulled.tensors.size(), specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const Bytes expected = Values(specs[i], i, version);
    ASSERT_EQ(pulled.tensors[i].data->size(), expected.size());
    ASSERT_EQ(std::memcmp(pulled.tensors[i].data->data(), expected.data(), expected.size()), 0) << specs[i].name;
  }
}

// Threads and connections are there after this, so that what comes after is memory's.
void WarmUp(const ServiceProcess& service) {
  const std::vector<TensorSpec> specs = Tensors(2, 3 * kMiB);
  ASSERT_OK(Push(service.Channel(), 1, specs));
  for (const Transport transport : {Transport::kWire, Transport::kSharedMemory}) {
    ASSERT_OK((*Subscriber::Connect(service.Channel(transport)))->Pull({}));
  }
}

class ManyTensors : public ::testing::TestWithParam<std::pair<size_t, int64_t>> {};

TEST_P(ManyTensors, TakeFewDescriptorsAndMappingsOnBothSides) {
  const std::vector<TensorSpec> specs = Tensors(GetParam().first, GetParam().second);
  ServiceProcess service({"--memory", "4GiB", "--retain", "2"});
  WarmUp(service);
  const Used service_before = UsedBy(service.process().pid());
  ASSERT_OK(Push(service.Channel(), 2, specs));
  ExpectFewMore(service_before, UsedBy(service.process().pid()), 1);
  ASSERT_OK(Push(service.Channel(), 3, specs));
  ExpectFewMore(service_before, UsedBy(service.process().pid()), 2);
  for (const Transport transport : {Transport::kWire, Transport::kSharedMemory}) {
    const auto subscriber = *Subscriber::Connect(service.Channel(transport));
    const Used before = UsedBy(getpid());
    const auto pulled = subscriber->Pull({});
    ASSERT_OK(pulled);
    ExpectFewMore(before, UsedBy(getpid()), 1);
    ExpectIs(*pulled, specs, 3);
  }
  auto staged_mappings = std::make_shared<Used>();
  WorkerOptions options;
  options.install = [&](StagedVersion& staged) {
    *staged_mappings = UsedBy(getpid());
    return staged.tensors.size() == specs.size() ? absl::OkStatus() : absl::InternalError("not all");
  };
  const auto worker = *Worker::Create(service.Channel(Transport::kWire), options);
  const Used before = UsedBy(getpid());
  ASSERT_OK(worker->Refit());
  ExpectFewMore(before, *staged_mappings, 1);
}

INSTANTIATE_TEST_SUITE_P(OfAnySize, ManyTensors,
                         ::testing::Values(std::make_pair(70'000, 3000), std::make_pair(200, 2 * kMiB + 100),
                                           std::make_pair(3000, 40'000)));

TEST(LimitedResources, StreamedVersionsTakeNoDescriptors) {
  ServiceProcess service({"--memory", "1GiB", "--retain", "0"});
  const std::vector<TensorSpec> specs = Tensors(100, 2 * kMiB);
  ASSERT_OK(Push(service.Channel(), 1, Tensors(2, 3 * kMiB)));
  const Used before = UsedBy(service.process().pid());
  ASSERT_OK(Push(service.Channel(), 2, specs));
  const Used after = UsedBy(service.process().pid());
  EXPECT_LE(after.descriptors, before.descriptors + 8);
}

TEST(LimitedResources, DescriptorsAreKeptForConnections) {
  ServiceProcess service({"--memory", "1GiB", "--retain", "2"});
  WarmUp(service);
  service.LeaveDescriptors(20);
  const std::vector<TensorSpec> specs = Tensors(40, 4 * kMiB);
  for (uint64_t version = 2; version <= 4; ++version) {
    ASSERT_OK(Push(service.Channel(), version, specs));
    auto pulled = (*Subscriber::Connect(service.Channel()))->Pull({});
    ASSERT_OK(pulled);
    ExpectIs(*pulled, specs, version);
  }
  const std::string log = service.Err();
  const size_t told = log.find("memory for tensors is no longer shared");
  ASSERT_NE(told, std::string::npos) << log;
  EXPECT_EQ(log.find("memory for tensors is no longer shared", told + 1), std::string::npos);
  EXPECT_THAT(log, AllOf(HasSubstr("ulimit -n"), HasSubstr("LimitNOFILE")));
}

TEST(LimitedResources, AWorkerWithoutMappingsIsServedOverTheConnection) {
  if (kSanitized) GTEST_SKIP() << "sanitizers need mappings of their own";
  ServiceProcess service({"--memory", "1GiB", "--retain", "2"});
  WarmUp(service);
  const std::vector<TensorSpec> specs = Tensors(80, 4 * kMiB);
  ASSERT_GT(SlabPlan(std::vector<uint64_t>(80, 4 * kMiB)).slabs(), 4U);
  const auto any = *Subscriber::Connect(service.Channel());
  const auto shared = *Subscriber::Connect(service.Channel(Transport::kSharedMemory));
  ASSERT_OK(any->Pull({}));
  ASSERT_OK(shared->Pull({}));
  ASSERT_OK(Push(service.Channel(), 2, specs));
  for (const size_t left : {60, 130}) {  // fewer than are kept for others, and some of what the version takes
    absl::StatusOr<PulledVersion> pulled;
    absl::StatusOr<PulledVersion> insists;
    {
      const NoMappings none(left);
      if (!none.is_exhausted()) GTEST_SKIP() << "vm.max_map_count is larger than what this test takes";
      pulled = any->Pull({});
      insists = shared->Pull({});
    }
    ASSERT_OK(pulled);
    ExpectIs(*pulled, specs, 2);
    EXPECT_THAT(pulled->result.not_mapped, HasSubstr("vm.max_map_count")) << left;
    EXPECT_THAT(insists, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("vm.max_map_count"))) << left;
  }
  ASSERT_OK(shared->Pull({}));
}

TEST(LimitedResources, AWorkerWithoutDescriptorsIsServedOverTheConnection) {
  ServiceProcess service({"--memory", "1GiB", "--retain", "2"});
  WarmUp(service);
  const std::vector<TensorSpec> specs = Tensors(10, 4 * kMiB);
  const auto any = *Subscriber::Connect(service.Channel());
  const auto shared = *Subscriber::Connect(service.Channel(Transport::kSharedMemory));
  ASSERT_OK(any->Pull({}));
  ASSERT_OK(shared->Pull({}));
  ASSERT_OK(Push(service.Channel(), 2, specs));
  {
    const LowLimit low(RLIMIT_NOFILE, 3);
    auto pulled = any->Pull({});
    ASSERT_OK(pulled);
    ExpectIs(*pulled, specs, 2);
    EXPECT_THAT(pulled->result.not_mapped, AllOf(HasSubstr("3 descriptors"), HasSubstr("ulimit -n")));
    EXPECT_THAT(shared->Pull({}), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("ulimit -n")));
  }
  auto pulled = shared->Pull({});
  ASSERT_OK(pulled);
  EXPECT_EQ(pulled->result.not_mapped, "");
}

// Shared memory is a file, and one that is larger than allowed ends a process that does not expect it.
TEST(LimitedResources, ALimitOnFilesDoesNotEndATrainer) {
  ServiceProcess service({"--memory", "1GiB", "--retain", "2"});
  const std::vector<TensorSpec> specs = Tensors(5, 4 * kMiB);
  const LowLimit low(RLIMIT_FSIZE, kMiB);
  ASSERT_OK(Push(service.Channel(), 1, specs));
  EXPECT_THAT(Push(service.Channel(Transport::kSharedMemory), 2, specs),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("ulimit -f")));
}

TEST(LimitedResources, WhatDoesNotFitIntoTheAddressesIsRefusedAndTheNextVersionIsTaken) {
  if (kSanitized) GTEST_SKIP() << "sanitizers need all addresses";
  ServiceProcess service({"--memory", "64GiB", "--retain", "2"});
  WarmUp(service);
  std::ifstream statm("/proc/" + std::to_string(service.process().pid()) + "/statm");
  uint64_t pages = 0;
  ASSERT_TRUE(statm >> pages);
  const uint64_t room = pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) + 700 * kMiB;
  const rlimit low = {room, room};
  ASSERT_EQ(prlimit(service.process().pid(), RLIMIT_AS, &low, nullptr), 0);
  const std::vector<TensorSpec> large = Tensors(44, 32 * kMiB);
  for (uint64_t version = 2; version <= 3; ++version) {
    EXPECT_THAT(Push(service.Channel(Transport::kWire), version, large),
                StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("ulimit -v")));
  }
  const std::vector<TensorSpec> small = Tensors(20, kMiB);
  ASSERT_OK(Push(service.Channel(Transport::kWire), 4, small));
  auto pulled = (*Subscriber::Connect(service.Channel()))->Pull({});
  ASSERT_OK(pulled);
  ExpectIs(*pulled, small, 4);
  EXPECT_OK((*Inspector::Connect(service.Channel()))->ServerInfo());
}

TEST(LimitedResources, AStartTellsOfTooMuchMemory) {
  ServiceProcess service({"--memory", "1000TiB"});
  service.Terminate();
  EXPECT_THAT(service.Err(),
              AllOf(HasSubstr("(--memory) is 1099511627776000 bytes"), HasSubstr("all that this process may use")));
}

}  // namespace
}  // namespace refit

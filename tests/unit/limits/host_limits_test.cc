// Over files as kernels and containers show them.
#include "common/limits/host_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/sanitized.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

constexpr uint64_t kMiB = 1 << 20;

class HostLimits : public ::testing::Test {
 protected:
  HostLimits() { Write("/proc/meminfo", "MemFree:  1 kB\nMemTotal:       16777216 kB\nSwapTotal: 0 kB\n"); }

  void Write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root() + path).parent_path());
    std::ofstream(root() + path) << text;
  }
  void MountV2(const std::string& group_shown = "/") const {
    Write("/proc/self/mountinfo",
          "21 20 0:20 / /proc rw - proc proc rw\n"
          "31 21 0:28 " +
              group_shown + " /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
  }
  void MountV1(const std::string& group_shown = "/") const {
    Write("/proc/self/mountinfo", "35 31 0:32 " + group_shown +
                                      " /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" + "36 31 0:33 " +
                                      group_shown +
                                      " /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
                                      "37 31 0:34 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n");
  }

  std::string root() const { return folder_.Path("root"); }
  MemoryLimit Memory() const { return LeastMemoryLimit(root()); }
  int Cpus() const { return UsableCpus(root()); }

  TemporaryFolder folder_;
};

int AllCpus() {
  cpu_set_t cpus;
  sched_getaffinity(0, sizeof(cpus), &cpus);
  return CPU_COUNT(&cpus);
}

TEST_F(HostLimits, WithoutGroupsItIsTheMachine) {
  EXPECT_EQ(Memory().bytes, 16384 * kMiB);
  EXPECT_EQ(Memory().source, "the machine's memory");
  EXPECT_EQ(Cpus(), AllCpus());
}

TEST_F(HostLimits, V2TheLeastOfAllGroupsAboveCounts) {
  MountV2();
  Write("/proc/self/cgroup", "0::/kubepods/pod1/main\n");
  Write("/sys/fs/cgroup/kubepods/memory.max", "max\n");
  Write("/sys/fs/cgroup/kubepods/pod1/memory.max", "536870912\n");
  Write("/sys/fs/cgroup/kubepods/pod1/main/memory.max", "1073741824\n");
  Write("/sys/fs/cgroup/kubepods/pod1/main/memory.high", "max\n");
  EXPECT_EQ(Memory().bytes, 512 * kMiB);
  EXPECT_EQ(Memory().source, "/sys/fs/cgroup/kubepods/pod1/memory.max");
  Write("/sys/fs/cgroup/kubepods/pod1/main/memory.high", "104857600\n");
  EXPECT_EQ(Memory().bytes, 100 * kMiB);
  EXPECT_EQ(Memory().source, "/sys/fs/cgroup/kubepods/pod1/main/memory.high");
}

TEST_F(HostLimits, V2InANamespaceOfItsOwn) {
  MountV2();
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/memory.max", "536870912\n");
  Write("/sys/fs/cgroup/cpu.max", "150000 100000\n");
  EXPECT_EQ(Memory().bytes, 512 * kMiB);
  EXPECT_EQ(Cpus(), std::min(2, AllCpus()));
}

TEST_F(HostLimits, AGroupThatIsNotSeenFromHereIsWhatIsMounted) {
  for (const char* group : {"/docker/abc", "/../../other", "/docker/abcdef/x"}) {
    MountV2(group == std::string("/docker/abcdef/x") ? "/docker/abc" : "/");
    Write("/proc/self/cgroup", std::string("0::") + group + "\n");
    Write("/sys/fs/cgroup/memory.max", "536870912\n");
    EXPECT_EQ(Memory().bytes, 512 * kMiB) << group;
  }
}

TEST_F(HostLimits, AMountThatShowsTheGroupAlone) {
  MountV1("/docker/abc");
  Write("/proc/self/cgroup", "4:memory:/docker/abc/inner\n3:cpu,cpuacct:/docker/abc\n0::/\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n");
  Write("/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "268435456\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Memory().bytes, 256 * kMiB);
  EXPECT_EQ(Cpus(), 1);
}

TEST_F(HostLimits, V1WithoutLimitsHasNone) {
  MountV1();
  Write("/proc/self/cgroup", "4:memory:/a\n3:cpu,cpuacct:/a\n");
  Write("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Memory().bytes, 16384 * kMiB);
  EXPECT_EQ(Cpus(), AllCpus());
}

TEST_F(HostLimits, NonsenseIsNoLimit) {
  MountV2();
  Write("/proc/self/cgroup", "0::/a\nnonsense\n:\n");
  Write("/sys/fs/cgroup/a/memory.max", "");
  Write("/sys/fs/cgroup/a/memory.high", "-5");
  Write("/sys/fs/cgroup/a/cpu.max", "100000 0\n");
  EXPECT_EQ(Memory().bytes, 16384 * kMiB);
  EXPECT_EQ(Cpus(), AllCpus());
  Write("/proc/meminfo", "");
  EXPECT_EQ(Memory().bytes, 0U);
}

TEST_F(HostLimits, OneCpuAtLeast) {
  MountV2();
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/cpu.max", "1000 100000\n");
  EXPECT_EQ(Cpus(), 1);
}

TEST_F(HostLimits, OnlyTheCpusThatItMayRunOn) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(Cpus(), 1);
  sched_setaffinity(0, sizeof(before), &before);
}

TEST_F(HostLimits, UlimitCounts) {
  if (kSanitized) GTEST_SKIP() << "sanitizers need all addresses";
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  const rlimit low = {uint64_t{8} << 30, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &low), 0);
  EXPECT_EQ(Memory().bytes, uint64_t{8} << 30);
  EXPECT_EQ(Memory().source, "ulimit -v");
  setrlimit(RLIMIT_AS, &before);
}

}  // namespace
}  // namespace refit

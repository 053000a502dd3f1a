// Finds how much memory and how many CPUs this process may use, with the limits of its container.
#pragma once

#include <cstdint>
#include <string>

namespace refit {

struct MemoryLimit {
  uint64_t bytes = 0;
  std::string source;  // where the limit is set: "/sys/fs/cgroup/a/memory.max", "the machine's memory", "ulimit -v"
};

// The smallest of the machine's memory, `ulimit -v`, and the limits of the process's control group and those above it
// (memory.max, memory.high, or v1's memory.limit_in_bytes). 0 bytes if the system does not tell. `root` is prepended to
// /proc and /sys.
MemoryLimit LeastMemoryLimit(const std::string& root = "");

// How many CPUs the process can keep busy: those of its affinity, limited by the quotas of its control groups (cpu.max,
// or v1's cpu.cfs_quota_us), rounded up. At least 1.
int UsableCpus(const std::string& root = "");

}  // namespace refit

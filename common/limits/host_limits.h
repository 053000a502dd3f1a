// Memory and CPUs that this process may use: the machine's, or what a container or a limit leaves of them.
#pragma once

#include <cstdint>
#include <string>

namespace refit {

struct MemoryLimit {
  uint64_t bytes = 0;
  std::string source;  // where it stands: "/sys/fs/cgroup/a/memory.max", "the machine's memory", "ulimit -v"
};

// The least of the machine's memory, `ulimit -v`, and what the control groups allow (memory.max, memory.high, or v1's
// memory.limit_in_bytes) in which the process stands, up to the root. 0 bytes where the system does not tell.
// `root` stands before /proc and /sys.
MemoryLimit LeastMemoryLimit(const std::string& root = "");

// How many CPUs can be kept busy: as many as the process may run on (affinity), and as the control groups' quotas
// (cpu.max, or v1's cpu.cfs_quota_us) allow, rounded up. At least 1.
int UsableCpus(const std::string& root = "");

}  // namespace refit

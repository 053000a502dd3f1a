#include "server/process/limit_warnings.h"

#include "absl/strings/str_cat.h"
#include "common/limits/host_limits.h"
#include "server/process/process_info.h"

namespace refit {
namespace {

// With fewer descriptors than this, a service cannot serve a fleet.
constexpr uint64_t kManyDescriptors = 4096;

}  // namespace

std::vector<std::string> LimitWarnings(uint64_t memory_budget_bytes) {
  std::vector<std::string> warnings;
  // The system kills a process that uses more memory than it may.
  const MemoryLimit memory = LeastMemoryLimit();
  if (memory.bytes != 0 && memory_budget_bytes >= memory.bytes) {
    warnings.push_back(absl::StrCat("the memory for tensors (--memory) is ", memory_budget_bytes,
                                    " bytes, but all that this process may use is ", memory.bytes, " (", memory.source,
                                    "): lower the one, or raise the other"));
  }
  const uint64_t descriptors = MaxDescriptors();
  if (descriptors != 0 && descriptors < kManyDescriptors) {
    warnings.push_back(absl::StrCat("few file descriptors, ", descriptors,
                                    ": each connection takes one; raise `ulimit -n`, or LimitNOFILE of its unit"));
  }
  return warnings;
}

}  // namespace refit

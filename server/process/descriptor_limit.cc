#include "server/process/descriptor_limit.h"

#include <sys/resource.h>

#include <algorithm>

namespace refit {

uint64_t RaiseDescriptorLimit() {
  constexpr rlim_t kEnough = 65536;
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  const rlimit raised = {std::max(limit.rlim_cur, std::min(limit.rlim_max, kEnough)), limit.rlim_max};
  return setrlimit(RLIMIT_NOFILE, &raised) == 0 ? raised.rlim_cur : limit.rlim_cur;
}

}  // namespace refit
